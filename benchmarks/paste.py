"""How long it takes to paste a face into a frame of 1080 x 1920 pixels, on the CPU.

Usage: python -m benchmarks.paste [--frames 50]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch

from latentsync.compositing.box_blend import paste_box
from latentsync.compositing.mouth_blend import MouthBlender
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.alignment import crop_size

HEIGHT_PX, WIDTH_PX = 1920, 1080
FACE_SHARE = 0.6  # of the frame's width: a close talking head
WARM_UP_FRAMES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50, help="to paste into, after a warm-up")
    frames = parser.parse_args().frames
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
    print(f"median of {frames} frames of {WIDTH_PX} x {HEIGHT_PX}, {torch.get_num_threads()} threads; the face moves")
    print("crop | mouth, ms | box, ms | copy of the frame, ms")
    for resolution in (256, 512):
        face = torch.rand(3, resolution, resolution) * 2 - 1
        mouth = MouthBlender(resolution, BlendSettings())
        ways: list[Callable[[np.ndarray], object]] = [
            lambda matrix, mouth=mouth, face=face: mouth.paste(frame, face, matrix),
            lambda matrix, face=face: paste_box(frame, face, matrix),
            lambda _: frame.copy(),
        ]
        print(f"{resolution} | " + " | ".join(f"{taken:.2f}" for taken in milliseconds(ways, resolution, frames)))


def milliseconds(ways: list[Callable[[np.ndarray], object]], resolution: int, frames: int) -> list[float]:
    """The median of each way; frame by frame in turn, so that none finds the memory as itself has left it."""
    taken: list[list[float]] = [[] for _ in ways]
    for i in range(WARM_UP_FRAMES + frames):
        matrix = matrix_at(resolution, i)
        for way, times in zip(ways, taken, strict=True):
            began = perf_counter()
            way(matrix)
            times.append(perf_counter() - began)
    return [1000 * median(times[WARM_UP_FRAMES:]) for times in taken]


def matrix_at(resolution: int, i: int) -> np.ndarray:
    """From the frame to the crop: a face in the middle that drifts by a fraction of a pixel a frame."""
    width, height = crop_size(resolution)
    scale = width / (FACE_SHARE * WIDTH_PX)
    return np.array(
        [
            [scale, 0.02, width / 2 - scale * (WIDTH_PX / 2 + 0.3 * i)],
            [-0.02, scale, height / 2 - scale * HEIGHT_PX / 2],
        ]
    )


if __name__ == "__main__":
    main()
