from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.errors import FaceError
from latentsync.faces.mediapipe_detector import face_from_mesh
from latentsync.faces.precomputed import PrecomputedDetector, from_comfyui, read_json
from latentsync.faces.tracker import track_faces
from tests.support.image_clip import black, drawn_mesh

SMALL = drawn_mesh(120, 20, 30)
LARGE = drawn_mesh(10, 20, 60)


def _landmarks(*frames: list[Any], size: Any = (100, 200)) -> dict[str, Any]:
    return {"frames": [[{"landmarks_xy": face} for face in faces] for faces in frames], "image_size": size}


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, np.ndarray.tolist, np.float32])
def test_precomputed_sorts_faces_largest_first(kind: Any) -> None:
    frames = from_comfyui(_landmarks([kind(SMALL), kind(LARGE)], []), black(2))
    assert [len(faces) for faces in frames] == [2, 0]
    assert vars(frames[0][0]) == vars(face_from_mesh(LARGE))
    assert frames[0][0].points.dtype == np.float64


def test_precomputed_one_frame_serves_all() -> None:
    frames = from_comfyui(_landmarks([LARGE]), black(3))
    assert [len(faces) for faces in frames] == [1, 1, 1]


def test_precomputed_scales_landmarks_of_resized_copy() -> None:
    (faces,) = from_comfyui(_landmarks([LARGE / 2], size=[50, 100]), black(1))
    assert faces[0].box == face_from_mesh(LARGE).box
    np.testing.assert_allclose(faces[0].points, face_from_mesh(LARGE).points)


def test_precomputed_detector_gives_the_faces_of_each_frame() -> None:
    frames = from_comfyui(_landmarks([LARGE], [], [SMALL]), black(3))
    results = list(track_faces(black(3), PrecomputedDetector(frames)))
    assert [tuple(face.detection for face in result.faces) for result in results] == frames


def test_precomputed_refuses_landmarks_of_other_video() -> None:
    with pytest.raises(FaceError, match='"face_landmarks" has 2 frames, but clip has 3'):
        from_comfyui(_landmarks([], []), black(3))
    with pytest.raises(FaceError, match="200 x 200"):
        from_comfyui(_landmarks([LARGE], size=(200, 200)), black(1))


@pytest.mark.parametrize(
    "landmarks",
    [
        {},
        {"frames": [[]]},
        {"frames": None, "image_size": (100, 200)},
        {"frames": [], "image_size": (100, 200)},
        {"frames": [[]], "image_size": (0, 200)},
        {"frames": [[]], "image_size": 100},
        _landmarks([LARGE[:68]]),
        _landmarks([np.full((478, 2), np.nan)]),
        _landmarks([np.zeros((478, 3))]),
        _landmarks(["face"]),
        {"frames": [[{"score": 1.0}]], "image_size": (100, 200)},
        {"frames": [["face"]], "image_size": (100, 200)},
    ],
)
def test_precomputed_refuses_values_that_are_no_landmarks(landmarks: dict[str, Any]) -> None:
    with pytest.raises(FaceError, match="landmarks"):
        from_comfyui(landmarks, black(1))


def test_precomputed_reads_json(tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    path.write_text(json.dumps(_landmarks([LARGE.tolist()])), encoding="utf-8")
    (faces,) = from_comfyui(read_json(path), black(1))
    assert vars(faces[0]) == vars(face_from_mesh(LARGE))


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_precomputed_names_file_without_landmarks(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faces.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FaceError, match=r"faces\.json"):
        read_json(path)


def test_precomputed_names_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match=r"none\.json"):
        read_json(tmp_path / "none.json")
