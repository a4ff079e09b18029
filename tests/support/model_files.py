"""Graphs that load a model, and changes to the models folder of the tests' ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from latentsync.models.vae import autoencoder_of
from latentsync.weights.loader import meta_shapes
from scripts.comfyui import ComfyUI
from tests.support import graphs


@contextmanager
def put_aside(path: Path) -> Iterator[Path]:
    """Rename a file and, at the end, rename it back; yields its temporary path."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield aside
    finally:
        aside.replace(path)


def loading(seed: str, **inputs: Any) -> graphs.Graph:
    """A graph that loads a model and shows it. `seed` keeps ComfyUI from using its cache."""
    chosen = {"version": "auto", "unet": "auto", "precision": "auto", "download_missing": False, **inputs}
    return {
        "model": {"class_type": "LatentSyncLoadModel", "inputs": chosen, "_meta": {"title": seed}},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["model", 0]}},
    }


def said(comfyui: ComfyUI, graph: graphs.Graph) -> str:
    return str(comfyui.run(graph)["outputs"]["shown"])


def full_size_vae() -> dict[str, torch.Tensor]:
    """Zeros in the shapes of Stable Diffusion 1.x's VAE, half precision."""
    shapes = meta_shapes(autoencoder_of((128, 256, 512, 512), layers=2))
    return {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}
