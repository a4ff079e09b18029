"""Pixels that are not square: faces are searched, cropped and shown in their true proportions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from typing_extensions import override

from latentsync.faces import precomputed
from latentsync.faces.alignment import crop, track_matrices
from latentsync.faces.detection import DetectionHints, FaceDetection, FaceDetector
from latentsync.faces.face_track import TrackSettings, build_face_track
from latentsync.faces.identities import cluster_tracks, select
from latentsync.faces.mediapipe_detector import face_from_mesh
from latentsync.faces.report import identity_crops
from latentsync.faces.tracker import track_faces
from tests.support.image_clip import Clip, drawn_mesh

SQUARE = (160, 240)  # height and width


class FixedFace(FaceDetector):
    """The same face in every frame, and the size of the frames that it was shown."""

    def __init__(self, face: FaceDetection) -> None:
        self.face = face
        self.sizes: set[tuple[int, ...]] = set()

    @override
    def detect(self, frame: np.ndarray, hints: DetectionHints) -> Sequence[FaceDetection]:
        self.sizes.add(frame.shape[:2])
        return [self.face]


def smooth_noise() -> np.ndarray:
    """(H, W, 3) without detail finer than 8 pixels, which squeezing would lose."""
    small = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    return cv2.resize(small, SQUARE[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9), Fraction(16, 11), Fraction(1, 2)])
def test_faces_with_pixel_aspect_equal_those_of_square_pixels(aspect: Fraction) -> None:
    """A squeezed copy gives the crop of the square original, within the blur of squeezing."""
    image = smooth_noise()
    width = round(SQUARE[1] / aspect)
    squeezed = cv2.resize(image, (width, SQUARE[0]), interpolation=cv2.INTER_AREA)
    face = face_from_mesh(drawn_mesh(100, 80, 70))
    crops, previews = [], []
    for source in (
        Clip(np.repeat(image[None], 12, axis=0)),
        Clip(np.repeat(squeezed[None], 12, axis=0), pixel_aspect=aspect),
    ):
        detector = FixedFace(face)
        identities = cluster_tracks(source, track_faces(source, detector))
        assert {abs(w - SQUARE[1]) <= 1 and h == SQUARE[0] for h, w in detector.sizes} == {True}
        track = build_face_track(identities, select(identities), TrackSettings())
        crops.append(crop(source.frames[0], track_matrices(track, 128)[0], 128).astype(int))
        previews.append(next(identity_crops(identities, 128)).astype(int))
    assert np.abs(crops[0] - crops[1]).mean() < 6, "levels of 255; without the ratio 30 and more"
    assert np.abs(previews[0] - previews[1]).mean() < 6


def test_landmarks_of_stored_and_of_square_frames_agree() -> None:
    source = replace(Clip(np.zeros((2, 160, 180, 3), np.uint8)), pixel_aspect=Fraction(4, 3))
    mesh = drawn_mesh(100, 80, 70)
    square = precomputed.from_comfyui({"frames": [[{"landmarks_xy": mesh}]], "image_size": (160, 240)}, source)
    stored = precomputed.from_comfyui(
        {"frames": [[{"landmarks_xy": mesh * [0.75, 1]}]], "image_size": (160, 180)}, source
    )
    np.testing.assert_allclose(square[0][0].points, face_from_mesh(mesh).points)
    np.testing.assert_allclose(stored[0][0].points, square[0][0].points)
