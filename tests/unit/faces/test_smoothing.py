from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.faces import alignment
from latentsync.faces.detection import FaceDetector
from latentsync.faces.face_track import FaceTrack, TrackSettings, build_face_track, smooth
from latentsync.video.video_file import VideoFile
from tests.support.heads import found


def test_smoothing_keeps_motion() -> None:
    """A head that speeds up, slows down and turns back: quadratics pass unchanged, ends included."""
    at = np.arange(40.0)
    for way in (at, 3 * at**2 - at, np.full(40, 7.0)):
        np.testing.assert_allclose(smooth(way[:, None, None]), way[:, None, None], atol=1e-6)


def test_smoothing_has_no_lag() -> None:
    """A head that sways once a second: the filtered wave is the wave, neither late nor much smaller."""
    angle = 2 * np.pi * np.arange(200) / 25
    steady = smooth(np.sin(angle))[20:-20]
    turned = np.exp(-1j * angle[20:-20])
    late = np.angle((steady * turned).mean() / (np.sin(angle[20:-20]) * turned).mean())
    assert abs(late) < 1e-6
    assert np.abs(steady).max() > 0.97


def test_smoothing_halves_noise() -> None:
    noise = np.random.default_rng(3).normal(size=(5000, 3, 2))
    assert smooth(noise).std() < 0.51 * noise.std()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 10])
def test_smoothing_keeps_length_of_short_runs(count: int) -> None:
    at = np.arange(float(count))[:, None]
    np.testing.assert_allclose(smooth(at), at, atol=1e-9)


@pytest.mark.parametrize("clip", ["demo1", "demo2", "demo3"])
def test_smoothing_halves_jitter_of_real_head(shared: Path, detector: FaceDetector, clip: str) -> None:
    identities = found(VideoFile(shared / f"media/{clip}_video.mp4", duration_seconds=Fraction(2)), detector)
    crops = {
        smoothing: _corners(build_face_track(identities, identities.members[0], TrackSettings(smoothing=smoothing)))
        for smoothing in ("official", "zero-lag")
    }
    jitter = {smoothing: np.abs(np.diff(corners, n=2, axis=0)).mean() for smoothing, corners in crops.items()}
    assert jitter["zero-lag"] <= 0.5 * jitter["official"]


def _corners(track: FaceTrack) -> np.ndarray:
    """Where the crop's corners lie in the frame: (frames, 3, 4)."""
    matrices = np.concatenate(
        [alignment.track_matrices(track, 256), np.tile([[[0.0, 0, 1]]], (track.source.frame_count, 1, 1))], 1
    )
    return np.linalg.inv(matrices) @ np.array([[0, 0, 1], [210, 0, 1], [0, 280, 1], [210, 280, 1.0]]).T
