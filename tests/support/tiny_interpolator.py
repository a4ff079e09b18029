"""A frame interpolation model for ComfyUI whose output is known: the mean of both neighbors.

All weights of this RIFE network are 0. It then moves no pixel, and mixes both neighbors in equal parts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

HEAD, WIDTH, BLOCKS, LAYERS = 1, 2, 5, 8


def write_tiny_interpolator(path: Path) -> Path:
    shapes = {"encode.cnn0": (16, 3, 3), "encode.cnn1": (16, 16, 3), "encode.cnn2": (16, 16, 3)}
    tensors = {"encode.cnn3.weight": torch.zeros(16, HEAD, 4, 4), "encode.cnn3.bias": torch.zeros(HEAD)}
    for number in range(BLOCKS):
        block, channels = f"blocks.{number}", (20 if number else 7) + 2 * HEAD
        shapes |= {f"{block}.conv0.0.0": (WIDTH // 2, channels, 3), f"{block}.conv0.1.0": (WIDTH, WIDTH // 2, 3)}
        shapes |= {f"{block}.convblock.{layer}.conv": (WIDTH, WIDTH, 3) for layer in range(LAYERS)}
        tensors |= {f"{block}.convblock.{layer}.beta": torch.zeros(1, WIDTH, 1, 1) for layer in range(LAYERS)}
        tensors |= {
            f"{block}.lastconv.0.weight": torch.zeros(WIDTH, 52, 4, 4),
            f"{block}.lastconv.0.bias": torch.zeros(52),
        }
    for name, (outputs, inputs, side) in shapes.items():
        tensors |= {f"{name}.weight": torch.zeros(outputs, inputs, side, side), f"{name}.bias": torch.zeros(outputs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
