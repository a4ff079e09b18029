from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latentsync.errors import DependencyError, FaceError, WeightsError
from latentsync.face.detect import Face, FaceDetector
from latentsync.face.track import detect_frames, follow_largest
from tests.face.clip import Clip, decoded, drawn_face


@pytest.fixture(scope="module")
def detector(shared: Path) -> Iterator[FaceDetector]:
    with FaceDetector(shared / "models/face_landmarker.task") as opened:
        yield opened


@pytest.mark.parametrize("clip", ["demo1", "demo2", "demo3"])
def test_a_real_face_is_found(shared: Path, detector: FaceDetector, clip: str) -> None:
    frame = decoded(shared / f"media/{clip}_video.mp4", 1)[0]
    (face,) = detector.detect(frame)
    left, right, nose = face.points
    assert face.landmarks.shape == (478, 2)
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1]
    assert face.area > 100**2


def test_the_points_are_those_the_model_was_trained_with(shared: Path, detector: FaceDetector) -> None:
    recorded = np.load(shared / "golden/real/align_demo2_256.npz")["landmarks"]
    frames = decoded(shared / "media/demo2_video.mp4", len(recorded))
    clip = Clip(frames)
    found = follow_largest(clip, list(detect_frames(clip, detector)))
    # Half a pixel: MediaPipe's arithmetic differs between processors.
    np.testing.assert_allclose(found.points, recorded, atol=0.5)


def test_a_frame_where_the_face_is_missed_stays_without(shared: Path, detector: FaceDetector) -> None:
    clip = Clip(decoded(shared / "media/demo3_video.mp4", 24)[18:])
    track = follow_largest(clip, list(detect_frames(clip, detector)))
    # Frames 21 and 22 of the clip, where the whole-frame search finds nothing on the processor this was written on.
    assert track.present[[0, -1]].all()
    assert not track.present.all()


def test_a_frame_in_any_layout_gives_the_same_face(shared: Path, detector: FaceDetector) -> None:
    frame = decoded(shared / "media/demo2_video.mp4", 1)[0]
    padded = np.zeros((frame.shape[0], frame.shape[1] + 8, 3), np.uint8)
    padded[:, :-8] = frame
    (expected,) = detector.detect(frame.copy())
    for same in (padded[:, :-8], np.asfortranarray(frame), frame.astype(np.float32) / 255):
        (face,) = detector.detect(same)
        np.testing.assert_array_equal(face.landmarks, expected.landmarks)


def test_of_two_faces_the_larger_comes_first(shared: Path, detector: FaceDetector) -> None:
    small = decoded(shared / "media/demo1_video.mp4", 1)[0][400:1040, 280:920]
    large = decoded(shared / "media/demo2_video.mp4", 1)[0][160:800, 230:870]
    faces = detector.detect(np.concatenate([small, large], axis=1))
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box[0] > small.shape[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (480, 640)])
def test_a_picture_without_a_face_gives_none(detector: FaceDetector, size: tuple[int, int]) -> None:
    assert detector.detect(np.zeros((*size, 3), np.uint8)) == ()


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing\.task"):
        FaceDetector(tmp_path / "missing.task")
    broken = tmp_path / "broken.task"
    broken.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match=r"broken\.task.*face_landmarker"):
        FaceDetector(broken)


def test_a_missing_mediapipe_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(DependencyError, match="pip install"):
        FaceDetector(tmp_path / "any.task")


def test_a_face_is_measured() -> None:
    face = drawn_face(20, 40, 100)
    assert face.box == (20, 40, 120, 140)
    assert face.area == 100**2
    np.testing.assert_allclose(face.points, [[45, 65], [95, 65], [70, 115]])


def test_a_face_needs_the_whole_mesh() -> None:
    with pytest.raises(FaceError, match=r"\(68, 2\)"):
        Face(np.zeros((68, 2)))
    with pytest.raises(FaceError, match="not numbers"):
        Face(np.full((478, 2), np.nan))
