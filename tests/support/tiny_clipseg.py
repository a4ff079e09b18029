"""A tiny untrained CLIPSeg of transformers' real class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from latentsync.fileio import atomic_write

if TYPE_CHECKING:
    from transformers import CLIPSegForImageSegmentation

ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 1}


def tiny_clipseg() -> CLIPSegForImageSegmentation:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    config = CLIPSegConfig(
        text_config={**ENCODER, "num_hidden_layers": 2},
        vision_config={**ENCODER, "num_hidden_layers": 4, "patch_size": 16},
        projection_dim=24,
        reduce_dim=16,
        extract_layers=[1, 2, 3],
        decoder_intermediate_size=40,
        use_complex_transposed_convolution=True,
    )
    torch.manual_seed(0)
    return CLIPSegForImageSegmentation(config).eval()


def write_tiny_clipseg(path: Path) -> Path:
    """Write it as old checkpoints are: with the tables of positions."""
    network = tiny_clipseg()
    state = dict(network.state_dict())
    for part in ("text", "vision"):
        state[f"clip.{part}_model.embeddings.position_ids"] = torch.arange(77)[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda temp: save_file({key: tensor.contiguous() for key, tensor in state.items()}, temp))
    return path
