from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from latentsync.errors import FaceError, UsageError, WeightsError
from latentsync.faces.detection import FaceDetection, FaceDetector, detect_in_image, iou
from latentsync.faces.mediapipe_detector import (
    LEFT_CHEEK,
    NOSE_DEPTH,
    NOSE_TIP,
    RIGHT_CHEEK,
    MediaPipeDetector,
    face_from_mesh,
    tiles,
)
from latentsync.faces.tracker import track_faces
from tests.support.image_clip import Clip, decoded, drawn_mesh


@pytest.mark.parametrize("clip", ["demo1", "demo2", "demo3"])
def test_detection_finds_real_face(shared: Path, detector: FaceDetector, clip: str) -> None:
    frame = decoded(shared / f"media/{clip}_video.mp4", 1)[0]
    (face,) = detect_in_image(detector, frame)
    left, right, nose = face.points
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1]
    assert face.area > 100**2


def test_detection_points_match_training_landmarks(shared: Path, detector: FaceDetector) -> None:
    recorded = np.load(shared / "golden/real/align_demo2_256.npz")["landmarks"]
    frames = decoded(shared / "media/demo2_video.mp4", len(recorded))
    clip = Clip(frames)
    points = np.stack([result.faces[0].detection.points for result in track_faces(clip, detector)])
    # Recorded from whole frames, measured here on enlarged crops: MediaPipe places its mesh anew for each. The face is
    # 270 pixels wide; 1.5 % of it at worst, a third of a percent on average.
    assert np.abs(points - recorded).max() < 4
    assert np.abs(points - recorded).mean() < 1


@pytest.mark.slow
def test_detection_tiles_find_face_whole_frame_misses(shared: Path, detector: FaceDetector) -> None:
    """Frames 18 to 23 of demo3 and 126 to 135 of demo1, where MediaPipe's landmarker on whole frames finds none."""
    for clip, first, count in (("demo3", 18, 6), ("demo1", 126, 10)):
        frames = decoded(shared / f"media/{clip}_video.mp4", first + count)[first:]
        assert [len(result.faces) for result in track_faces(Clip(frames), detector)] == [1] * count


@pytest.mark.parametrize("face_px", [40, 60, 90])
def test_detection_finds_small_face_in_large_frame(shared: Path, detector: FaceDetector, face_px: int) -> None:
    frame = decoded(shared / "media/demo2_video.mp4", 1)[0]
    small = cv2.resize(frame, None, fx=face_px / 268, fy=face_px / 268, interpolation=cv2.INTER_AREA)
    picture = np.full((1920, 1080, 3), 90, np.uint8)
    picture[700 : 700 + small.shape[0], 350 : 350 + small.shape[1]] = small
    (face,) = detect_in_image(detector, picture)
    assert face.box[2] - face.box[0] == pytest.approx(face_px, rel=0.2)


@pytest.mark.slow
def test_detection_ignores_hands(shared: Path, detector: FaceDetector) -> None:
    """In these frames the box detector takes hands for faces once they are enlarged."""
    for clip, index in (("demo1", 60), ("demo3", 158)):
        frame = decoded(shared / f"media/{clip}_video.mp4", index + 1)[index]
        assert len(detect_in_image(detector, frame)) == 1


def test_detection_tiles_cover_frame_and_overlap() -> None:
    for height, width in ((1920, 1080), (480, 270), (641, 3000)):
        cover = np.zeros((height, width), int)
        for rows, columns in tiles(height, width):
            cover[rows, columns] += 1
        assert cover.min() >= 1
    assert list(tiles(320, 200)) == []


def test_detection_ignores_memory_layout_of_frame(shared: Path, detector: FaceDetector) -> None:
    frame = decoded(shared / "media/demo2_video.mp4", 1)[0]
    padded = np.zeros((frame.shape[0], frame.shape[1] + 8, 3), np.uint8)
    padded[:, :-8] = frame
    (expected,) = detect_in_image(detector, frame.copy())
    for same in (padded[:, :-8], np.asfortranarray(frame), frame.astype(np.float32) / 255):
        (face,) = detect_in_image(detector, same)
        assert vars(face) == vars(expected)


def test_detection_sorts_largest_face_first(shared: Path, detector: FaceDetector) -> None:
    small = decoded(shared / "media/demo1_video.mp4", 1)[0][400:1040, 280:920]
    large = decoded(shared / "media/demo2_video.mp4", 1)[0][160:800, 230:870]
    faces = detect_in_image(detector, np.concatenate([small, large], axis=1))
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box[0] > small.shape[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (480, 640)])
def test_detection_frame_without_face_gives_none(detector: FaceDetector, size: tuple[int, int]) -> None:
    assert detect_in_image(detector, np.zeros((*size, 3), np.uint8)) == ()


def test_detection_names_unreadable_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing\.task"):
        MediaPipeDetector(tmp_path / "missing.task")
    broken = tmp_path / "broken.task"
    broken.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match=r"broken\.task is not a valid face landmarker of MediaPipe"):
        MediaPipeDetector(broken)


def test_detection_measures_a_face() -> None:
    face = face_from_mesh(drawn_mesh(20, 40, 100), 0.75)
    assert face.box == (20, 40, 120, 140)
    assert face.area == 100**2
    assert face.score == 0.75
    np.testing.assert_allclose(face.points, [[45, 65], [95, 65], [70, 115]])


def test_detection_needs_the_whole_mesh() -> None:
    with pytest.raises(FaceError, match="A face has 68 x 2 values"):
        face_from_mesh(np.zeros((68, 2)))
    with pytest.raises(FaceError, match="NaN"):
        face_from_mesh(np.full((478, 2), np.nan))


@pytest.mark.parametrize("field", ["box", "score", "brow_left", "brow_right", "nose", "yaw"])
def test_detection_refuses_nan(field: str) -> None:
    values: dict[str, Any] = {**vars(face_from_mesh(drawn_mesh(20, 40, 100)))}
    values[field] = tuple(np.full(np.size(values[field]), np.nan))
    with pytest.raises(FaceError, match="A face has NaN or infinite values"):
        FaceDetection(**values)


def test_detection_refuses_confidence_out_of_range(tmp_path: Path) -> None:
    for confidence in (0, 1.5):
        with pytest.raises(UsageError, match="min_confidence"):
            MediaPipeDetector(tmp_path / "any.task", confidence)


def test_detection_iou() -> None:
    box = (0.0, 0.0, 20.0, 20.0)
    assert iou(box, box) == pytest.approx(1)
    assert iou(box, (10.0, 0.0, 30.0, 20.0)) == pytest.approx(1 / 3)
    assert iou(box, (40.0, 0.0, 60.0, 20.0)) == 0


@pytest.mark.parametrize("degrees", [-70, -30, 0, 30, 60])
def test_detection_yaw_comes_from_the_mesh(degrees: float) -> None:
    """Cheeks and nose of a head that turns, seen from far away and tilted."""
    turn, tilt = np.radians(degrees), np.radians(20)
    cheeks_and_nose = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, NOSE_DEPTH]])
    seen = cheeks_and_nose @ np.array([np.cos(turn), np.sin(turn)])
    mesh = np.zeros((468, 2))
    mesh[[LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP]] = 100 + 50 * seen[:, None] * [np.cos(tilt), np.sin(tilt)]
    assert face_from_mesh(mesh).yaw == pytest.approx(degrees)
