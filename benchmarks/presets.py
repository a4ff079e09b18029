"""How far each `speed` is from `exact`, with the trained miniature model: the mouth's pixels, and its movement.

The miniature model knows one face and a synthetic voice. It has learned how lips follow that sound, so its guidance and
its steps matter, but its distances need not be those of the official weights.

Usage: python -m benchmarks.presets --model face_landmarker.task [--seconds 2.4]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latentsync import LipSyncPipeline
from latentsync.compositing.compositor import decode_crops
from latentsync.compositing.mouth_blend import mouth_weight
from latentsync.sampling.settings import SPEEDS
from tests.support.talking import MouthMeter, Sync, astronaut, level, mono, sync, voice

SEEDS = (1247, 1248)


class Take(NamedTuple):
    """mouths: float (frames, pixels, 3) in [0, 1]. openings: (frames,), in distances of the eyes."""

    mouths: np.ndarray
    openings: np.ndarray
    sync: Sync


def main() -> None:
    options = _options()
    sound, pipeline = voice(options.seconds), LipSyncPipeline.miniature()
    sys.stdout.write(
        "| `speed` | PSNR of the mouth | difference of the opening | correlation | lag |\n|---|---|---|---|---|\n"
    )
    with tempfile.TemporaryDirectory() as folder, MouthMeter(options.model) as meter:
        track = astronaut(Path(folder), round(options.seconds * 25))

        def take(speed: str, seed: int) -> Take:
            result = pipeline(track.source, sound, face=track, speed=speed, seed=seed)
            inside = mouth_weight(pipeline.spec.resolution, 0, 0.05) == 1
            mouths = np.stack([crop[inside] for crop in decode_crops(result.speakers[0])])
            openings = meter.openings(result.frames())
            return Take(mouths, openings, sync(openings, level(mono(sound), sound.rate, len(openings), result.fps)))

        exact = {seed: take("exact", seed) for seed in SEEDS}
        for speed in SPEEDS:
            compare(
                f"`{speed}`", [(exact[seed] if speed == "exact" else take(speed, seed), exact[seed]) for seed in SEEDS]
            )
        first, second = SEEDS
        compare("`exact`, another seed", [(exact[second], exact[first])])


def compare(name: str, pairs: list[tuple[Take, Take]]) -> None:
    """Print a row: takes against their references, and how well the takes follow the sound. Means of all pairs."""
    error = np.mean([((take.mouths - other.mouths) ** 2).mean() for take, other in pairs])
    psnr = f"{-10 * np.log10(error):.1f} dB" if error else ""
    opening = np.mean([np.abs(take.openings - other.openings).mean() for take, other in pairs])
    correlation = np.mean([take.sync.correlation for take, _ in pairs])
    lags = ", ".join(sorted({f"{take.sync.lag:d}" for take, _ in pairs}))
    sys.stdout.write(f"| {name} | {psnr} | {opening:.3f} | {correlation:.2f} | {lags} |\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--seconds", type=float, default=2.4, help="of speech")
    return parser.parse_args()


if __name__ == "__main__":
    main()
