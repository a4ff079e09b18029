"""Whisper's encoder, kept open at every block: the lips are driven by all of its states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import cannot_import
from .constants import AUDIO_STATES, AUDIO_WIDTH

MEL_BINS = 80


SEGMENT_MELS = 3000  # mel frames that the encoder takes at once: 30 s


TINY = {
    "n_mels": MEL_BINS,
    "n_audio_ctx": SEGMENT_MELS // 2,
    "n_audio_state": AUDIO_WIDTH,
    "n_audio_head": 6,
    "n_audio_layer": AUDIO_STATES - 1,
}
"""The sizes of the one encoder that LatentSync was trained with."""


class WhisperEncoder(nn.Module):
    """openai-whisper's audio encoder, giving five states per position.

    Args:
        dims: of the checkpoint, as `whisper.model.ModelDimensions`; those of the decoder are not looked at.

    Raises:
        DependencyError: openai-whisper cannot be imported.

    Weights stay float32, as Whisper's own layers expect; these cast to the dtype of the mel.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        try:
            from whisper.model import AudioEncoder
        except ImportError as error:
            raise cannot_import("Whisper", "openai-whisper>=20240930", error) from error
        self.encoder = AudioEncoder(
            dims["n_mels"], dims["n_audio_ctx"], dims["n_audio_state"], dims["n_audio_head"], dims["n_audio_layer"]
        )

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (batch, 80, 3000) -> (batch, 1500, 5, 384): after the position table, and after each block."""
        encoder = self.encoder
        table = cast("Tensor", encoder.positional_embedding)
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        states = [x + table.to(x)]
        for block in encoder.blocks:
            states.append(block(states[-1]))
        return torch.stack(states, dim=2)
