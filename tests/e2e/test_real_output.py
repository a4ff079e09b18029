"""A real clip with untrained lips through blending and codecs: kept pixels stay as good as the source."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks.seams import RESOLUTION, energy, untrained
from latentsync.compositing.compositor import Composite, composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.alignment import track_matrices
from latentsync.faces.face_track import build_face_track
from latentsync.faces.identities import cluster_tracks, select
from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.faces.tracker import track_faces
from latentsync.output.formats import Format, format_named
from latentsync.output.video_writer import VideoWriter
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.frame_source import FrameSource
from latentsync.video.video_file import VideoFile
from tests.support import seams

FRAMES = 8
LOSS_DB = 0.5  # below one plain encode of the source


@pytest.fixture(scope="module")
def lips(shared: Path, detector: MediaPipeDetector) -> LipTrack:
    source = VideoFile(shared / "media/demo2_video.mp4", duration_seconds=Fraction(FRAMES, 25))
    people = cluster_tracks(source, track_faces(source, detector))
    return untrained(build_face_track(people, select(people)))


@pytest.fixture(scope="module")
def untouched(lips: LipTrack) -> np.ndarray:
    """bool (frames, H, W): pixels outside the model's mask."""
    size = (lips.face_track.source.height, lips.face_track.source.width)
    return np.stack(
        [~seams.in_frame(matrix, size, RESOLUTION) for matrix in track_matrices(lips.face_track, RESOLUTION)]
    )


@pytest.fixture(scope="module")
def composites(lips: LipTrack) -> list[Composite]:
    return list(composite([lips], BlendSettings()))


def test_real_clip_changes_only_inside_mask(composites: list[Composite], untouched: np.ndarray) -> None:
    for (frame, source), outside in zip(composites, untouched, strict=True):
        changed = (frame != source).any(axis=-1)
        assert not (changed & outside).any()
        assert changed.sum() > 0.5 * (~outside).sum()


def test_real_clip_mouth_seam_is_softer_than_box(lips: LipTrack, capsys: pytest.CaptureFixture[str]) -> None:
    mouth, box = (energy(lips, BlendSettings(mode)) for mode in ("mouth", "full crop"))
    with capsys.disabled():
        print(f"energy of the seam: {mouth:.1f} (mouth), {box:.1f} (box) ", end="")
    assert mouth < box


def written(path: Path, form: Format, source: FrameSource, frames: Iterable[np.ndarray]) -> np.ndarray:
    """Frames in the size of the source, encoded and read back."""
    size = {"height": source.height, "width": source.width}
    with VideoWriter(path, rate=source.rate, format=form, **size) as writer:
        for frame in frames:
            writer.write(frame)
    return np.stack(list(VideoFile(path).read(range(FRAMES))))


def test_real_clip_kept_pixels_match_plain_encode(
    lips: LipTrack, composites: list[Composite], untouched: np.ndarray, tmp_path: Path
) -> None:
    form, clip = format_named("mp4 h264"), lips.face_track.source
    source = np.stack([original for _, original in composites])
    made = written(tmp_path / "made.mp4", form, clip, (frame for frame, _ in composites))
    plain = written(tmp_path / "plain.mp4", form, clip, source)
    ours, theirs = (psnr(frames[untouched], source[untouched]) for frames in (made, plain))
    assert ours > theirs - LOSS_DB, f"{ours:.2f} dB and {theirs:.2f} dB"


def test_real_clip_lossless_keeps_every_bit(
    lips: LipTrack, composites: list[Composite], untouched: np.ndarray, tmp_path: Path
) -> None:
    frames, source = (np.stack(pictures) for pictures in zip(*composites, strict=True))
    made = written(tmp_path / "made.mkv", format_named("mkv ffv1 lossless"), lips.face_track.source, frames)
    np.testing.assert_array_equal(made[untouched], source[untouched])
    np.testing.assert_array_equal(made, frames)


def psnr(made: np.ndarray, given: np.ndarray) -> float:
    """Peak signal to noise in dB."""
    return float(10 * np.log10(255**2 / np.mean((made.astype(np.float32) - given) ** 2)))


ENDLESS = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from latentsync.output.video_writer import VideoWriter
noise = np.random.default_rng(0).integers(0, 256, (8, 240, 320, 3), dtype=np.uint8)
with VideoWriter(Path(sys.argv[1]), rate=Fraction(25), height=240, width=320) as writer:
    for i in range(10**9):
        writer.write(noise[i % 8])
        if i == 100:
            print("writing", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a process that can be killed at once")
def test_killed_writer_leaves_no_final_file(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path / "out.mp4")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
