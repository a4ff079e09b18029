"""Do the lips follow the sound? The miniature model speaks, and MediaPipe measures its mouth.

Usage: python -m tests.lip_sync [--shift FRAMES] [CASE ...]

A line for each case: the correlation of the mouth's opening with the level of the sound, and the lag of the lips in
frames. The exit status is 1 if any misses. --shift plants a fault: the network hears the sound of other frames.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from latentsync import LipSyncPipeline, SamplerSettings, Waveform
from latentsync.faces.face_track import FaceTrack
from tests.support.paths import SHARED
from tests.support.talking import MouthMeter, Sync, astronaut, level, mono, shifted_windows, sync, talk, voice

MIN_CORRELATION = 0.6
SECONDS = 1.92  # three windows at 25 fps
DEFAULT_STEPS = SamplerSettings().num_inference_steps  # a preset replaces defaults only
NTSC = Fraction(30000, 1001)
LANDMARKER = SHARED / "models" / "face_landmarker.task"


@dataclass
class Stage:
    """The model, the meter and the clips, made once."""

    folder: Path
    meter: MouthMeter
    tracks: dict[Fraction, FaceTrack] = field(default_factory=dict)

    @cached_property
    def pipeline(self) -> LipSyncPipeline:
        return LipSyncPipeline.miniature()

    def track(self, rate: Fraction = Fraction(25)) -> FaceTrack:
        if rate not in self.tracks:
            self.tracks[rate] = astronaut(self.folder, 40, rate)
        return self.tracks[rate]

    def follow(
        self, sound: Waveform, *, rate: Fraction = Fraction(25), driving: Waveform | None = None, **settings: Any
    ) -> Sync:
        """Lip-sync the astronaut to a sound, and compare the lips with it, or with the sound that the model hears."""
        frames, fps = talk(self.pipeline, self.track(rate), sound, **settings)
        driving = driving or sound
        levels = level(mono(driving), driving.rate, len(frames), fps)
        return sync(self.meter.openings(frames), levels)


@dataclass(frozen=True)
class Case:
    """One way to run, and the lag that it must have."""

    run: Callable[[Stage], Sync]
    lag: int = 0


def louder_other_audio(stage: Stage) -> Sync:
    """The vocals drive the lips. The recording is louder, and runs backwards."""
    vocals = voice(SECONDS)
    audio = Waveform((1.6 * vocals.samples.flip(1)).clamp(-1, 1), vocals.rate)
    return stage.follow(audio, vocals=vocals, driving=vocals)


CASES: dict[str, Case] = {
    "25 fps": Case(lambda stage: stage.follow(voice(SECONDS))),
    "30 fps": Case(lambda stage: stage.follow(voice(SECONDS), rate=Fraction(30), fps="source")),
    "29.97 fps": Case(lambda stage: stage.follow(voice(SECONDS), rate=NTSC, fps="source")),
    "offset_ms 200": Case(lambda stage: stage.follow(voice(SECONDS), offset_ms=200), lag=5),
    "offset_ms -200": Case(lambda stage: stage.follow(voice(SECONDS), offset_ms=-200), lag=-5),
    "a second of silence first": Case(lambda stage: stage.follow(voice(SECONDS - 1, lead=1.0))),
    "audio (loop)": Case(lambda stage: stage.follow(voice(SECONDS), length="audio (loop)")),
    "audio (hold last frame)": Case(lambda stage: stage.follow(voice(SECONDS), length="audio (hold last frame)")),
    "shortest": Case(lambda stage: stage.follow(voice(SECONDS), length="shortest")),
    "video": Case(lambda stage: stage.follow(voice(SECONDS), length="video")),
    "vocals": Case(louder_other_audio),
    "overlap 4": Case(lambda stage: stage.follow(voice(SECONDS), overlap=4)),
    "speed fast": Case(lambda stage: stage.follow(voice(SECONDS), speed="fast", num_inference_steps=DEFAULT_STEPS)),
}

DAILY = ("25 fps", "29.97 fps", "offset_ms 200", "audio (loop)", "vocals")  # of `make test`. Nightly runs the others


def passes(case: Case, seen: Sync) -> bool:
    # at another lag than 0, the lips match the sound of another instant
    return seen.lag == case.lag and (case.lag != 0 or seen.correlation >= MIN_CORRELATION)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure whether lips follow a sound.")
    parser.add_argument("cases", nargs="*", metavar="CASE", default=list(CASES), help="; ".join(CASES))
    parser.add_argument("--shift", type=int, default=0, metavar="FRAMES", help="plant a fault: hear other frames")
    options = parser.parse_args(arguments)
    missed = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = Stage(folder, stack.enter_context(MouthMeter(LANDMARKER)))
        if options.shift:
            stack.enter_context(shifted_windows(options.shift))
        for name in options.cases:
            seen = CASES[name].run(stage)
            good = passes(CASES[name], seen)
            missed += not good
            verdict = "ok" if good else f"MISSED, expected a lag of {CASES[name].lag}"
            sys.stdout.write(f"{name:28} correlation {seen.correlation:5.2f}  lag {seen.lag:+d}  {verdict}\n")
            sys.stdout.flush()
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
