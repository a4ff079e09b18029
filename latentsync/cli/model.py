"""The flags of `run` for the model, and the model from these flags."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..weights.catalog import MODELS
from ..weights.locate import folders_in

if TYPE_CHECKING:
    from ..pipeline import LipSyncPipeline
    from ..sampling.sampler import Workers

AUTO = "auto"
MODEL_FLAGS = ("version", "unet", "vae", "miniature", "models", "device", "precision")
MINIATURE_WARNING = "warning: --miniature uses a small model that was trained on one face, not ByteDance's model."


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the model."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--version",
        choices=(AUTO, *sorted(MODELS)),
        default=AUTO,
        help="auto uses the best version on disk that fits the device",
    )
    group.add_argument(
        "--unet", type=Path, metavar="FILE", help="a UNet file, such as a fine-tuned UNet. Needs --version"
    )
    group.add_argument("--vae", type=Path, metavar="FILE", help="a Stable Diffusion 1.x VAE to replace sd-vae-ft-mse")
    group.add_argument(
        "--miniature",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="use the demo's small model, to test the installation",
    )


def model_key(args: argparse.Namespace) -> tuple[Any, ...]:
    """A key that is equal for flags that select the same model."""
    return tuple(getattr(args, name) for name in MODEL_FLAGS)


def locate_model(args: argparse.Namespace) -> tuple[str, tuple[Path, ...]]:
    """The version and the files of the model that the flags select.

    Raises WeightsError if a file is missing or wrong.
    """
    from ..weights import locate, miniature
    from .device import chosen_device

    if args.miniature:
        return args.version, miniature.files()
    version = None if args.version == AUTO else args.version
    memory_bytes = locate.device_memory(chosen_device(args.device)) if version is None else None
    folders, needs_vae = folders_in(args.models), args.vae is None
    files = locate.locate(folders, version, args.unet, memory_bytes=memory_bytes, needs_vae=needs_vae)
    return files.spec.version, (files.unet, files.whisper, args.vae or files.vae)


def worker_flags(args: argparse.Namespace) -> argparse.Namespace:
    """The flags of the model with absolute paths, because the current folder of a worker can differ."""
    flags = {name: getattr(args, name) for name in MODEL_FLAGS}
    return argparse.Namespace(**{k: v.absolute() if isinstance(v, Path) else v for k, v in flags.items()})


def load_pipeline(args: argparse.Namespace, workers: Workers | None = None) -> LipSyncPipeline:
    """Load the networks that the flags select. `workers` replace the UNet and the VAE."""
    from ..pipeline import LipSyncPipeline
    from .device import chosen_device, chosen_dtype

    device = chosen_device(args.device)
    dtype = chosen_dtype(args.precision, device)
    if args.miniature:
        sys.stderr.write(MINIATURE_WARNING + "\n")
        return LipSyncPipeline.miniature(device=device, dtype=dtype, workers=workers)
    return LipSyncPipeline.from_pretrained(
        None if args.version == AUTO else args.version,
        models_dir=args.models,
        device=device,
        dtype=dtype,
        unet=args.unet,
        vae=args.vae,
        workers=workers,
    )
