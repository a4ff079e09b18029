"""Is a moved sound found? The demo clips with their own sound, moved by known times, without the weights of SyncNet.

Usage: python -m tests.offsets [CLIP ...]

A line for each clip and move: the offset that was found, and the correlation of the mouth opening with the voice. The
exit status is 1 if an offset is more than one frame away from the move.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from latentsync import VideoFile, Waveform, detect_faces, select_face
from latentsync.audio.reader import read_audio
from latentsync.scoring.mouth_sync import MouthSync
from latentsync.scoring.score import score_track
from latentsync.scoring.sync import FRAME_MS
from latentsync.weights.locate import folders_in
from tests.support.paths import SHARED

CLIPS = ("demo1", "demo2", "demo3")
MOVES_MS = (-400, -200, 0, 200, 400)


class Found(NamedTuple):
    """What was found after the sound was moved later by some time."""

    clip: str
    moved_ms: int
    result: MouthSync

    @property
    def is_right(self) -> bool:
        """Later sound lags, so its offset is negative. The resolution is one frame."""
        return abs(self.result.offset_ms + self.moved_ms) <= FRAME_MS


def moved(waveform: Waveform, milliseconds: int) -> Waveform:
    """A sound that begins later, after silence, or earlier, without its start. The length stays."""
    later = Waveform(torch.zeros(len(waveform.samples), max(milliseconds, 0) * waveform.rate // 1000), waveform.rate)
    samples = torch.cat([later.samples, waveform.samples[:, max(-milliseconds, 0) * waveform.rate // 1000 :]], dim=1)
    return Waveform(samples, waveform.rate).pad_or_trim(waveform.duration_seconds)


def find(clip: str, models: Path) -> Iterator[Found]:
    """The offset of a clip for each move."""
    path = SHARED / "media" / f"{clip}_video.mp4"
    waveform, track = read_audio(path), select_face(detect_faces(VideoFile(path), folders_in(models))).track
    for moved_ms in MOVES_MS:
        result = score_track(track, moved(waveform, moved_ms)).mouth_sync
        assert result is not None, f"{clip} has no mouth that moves"
        yield Found(clip, moved_ms, result)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the offsets of clips whose sound was moved.")
    parser.add_argument("clips", nargs="*", metavar="CLIP", default=list(CLIPS), help=", ".join(CLIPS))
    parser.add_argument("--models", type=Path, default=Path("models"), help="a models folder with MediaPipe's model")
    options = parser.parse_args(arguments)
    wrong = 0
    for clip in options.clips:
        for found in find(clip, options.models):
            wrong += not found.is_right
            verdict = ("ok" if found.is_right else "WRONG") + ("" if found.result.is_clear else ", not clear")
            sys.stdout.write(
                f"{clip}  sound moved by {found.moved_ms:+5d} ms  offset {found.result.offset_ms:+5d} ms  "
                f"correlation {found.result.correlation:.2f}  {verdict}\n"
            )
            sys.stdout.flush()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
