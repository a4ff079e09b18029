"""Whisper's audio encoder with the hidden states of every block, which condition the UNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import cannot_import
from .constants import AUDIO_STATES, AUDIO_WIDTH

if TYPE_CHECKING:
    from whisper.model import AudioEncoder

MEL_BINS = 80
SEGMENT_MELS = 3000  # mel frames of one encoder input: 30 s

TINY = {
    "n_mels": MEL_BINS,
    "n_audio_ctx": SEGMENT_MELS // 2,
    "n_audio_state": AUDIO_WIDTH,
    "n_audio_head": 6,
    "n_audio_layer": AUDIO_STATES - 1,
}
"""Dimensions of Whisper tiny's encoder, the only one that LatentSync was trained with."""


class WhisperEncoder(nn.Module):
    """openai-whisper's audio encoder, which returns five hidden states per position.

    Weights stay float32. Whisper's own layers cast the weights to the dtype of the mel.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Tensor) -> Tensor:
        """mel: (batch, 80, 3000) -> (batch, 1500, 5, 384): after the positional embedding and after each block."""
        encoder = self.encoder
        positions = cast("Tensor", encoder.positional_embedding)
        x = F.gelu(encoder.conv1(mel))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)
        hidden_states = [x + positions.to(x)]
        for block in encoder.blocks:
            hidden_states.append(block(hidden_states[-1]))
        return torch.stack(hidden_states, dim=2)


def whisper_encoder(dims: Mapping[str, int]) -> Callable[[], WhisperEncoder]:
    """A factory of an encoder.

    This function imports openai-whisper, because the factory runs on the meta device.

    Args:
        dims: the checkpoint's `whisper.model.ModelDimensions`. The encoder does not use the dimensions of the decoder.

    Raises:
        DependencyError: openai-whisper cannot be imported.
    """
    try:
        from whisper.model import AudioEncoder
    except ImportError as error:
        raise cannot_import("Whisper", "openai-whisper>=20240930", error) from error
    return lambda: WhisperEncoder(
        AudioEncoder(
            n_mels=dims["n_mels"],
            n_ctx=dims["n_audio_ctx"],
            n_state=dims["n_audio_state"],
            n_head=dims["n_audio_head"],
            n_layer=dims["n_audio_layer"],
        )
    )
