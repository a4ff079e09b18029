"""Train the miniature model from random weights: a small VAE and UNet for one face, on two CPU cores.

Usage: python -m training.miniature [--work .miniature] [--out demo/miniature] [--vae-minutes 22] [--unet-minutes 46]

Each stage writes a file to the work folder. A stopped run continues from there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from latentsync.weights import miniature, random_init

from . import dataset, train_unet, train_vae

SEED = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.miniature", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".miniature"), help="folder for data and checkpoints")
    parser.add_argument("--out", type=Path, default=miniature.FOLDER, help="folder for the weights")
    parser.add_argument("--vae-minutes", type=float, default=22, help="time to train the VAE (default: %(default)s)")
    parser.add_argument("--unet-minutes", type=float, default=46, help="time to train the UNet (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    with (work / "log.txt").open("a", encoding="utf-8") as file:

        def log(line: str) -> None:
            for stream in (sys.stdout, file):
                stream.write(f"{line}\n")
                stream.flush()

        def stage(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
            """The tensors of a stage. They come from its file if an earlier run finished it."""
            path = work / f"{name}.pt"
            if not path.is_file():
                started = time.monotonic()
                torch.save(make(), path)
                log(f"{name}: {(time.monotonic() - started) / 60:.1f} min")
            return torch.load(path, weights_only=True)

        crops = stage("crops", lambda: {"images": train_vae.build_crops(SEED)})["images"]
        clips = stage("clips", lambda: dataset.build_clips(miniature.whisper(), SEED + 1, log))
        train_vae.train_vae(crops, arguments.vae_minutes, work / "vae.ckpt", log, SEED)
        vae_state = stage("vae", lambda: train_vae.normalized_state(work / "vae.ckpt", crops))
        vae = random_init.vae()
        vae.vae.load_state_dict(vae_state)
        encoded = stage("latents", lambda: dataset.encode_clips(clips, vae))
        train_unet.train_unet(encoded, arguments.unet_minutes, work / "unet.ckpt", log, SEED)
        unet_state = torch.load(work / "unet.ckpt", weights_only=True)["mean_unet"]
        miniature.save(unet_state, vae_state, arguments.out)
        log(f"Wrote {arguments.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
