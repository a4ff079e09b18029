"""Short clips of the talking face with moving camera and light, cropped like in the pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from latentsync.faces import alignment
from latentsync.faces.mediapipe_detector import LEFT_BROW, NOSE, RIGHT_BROW
from latentsync.weights.miniature import RESOLUTION
from scripts.sample_clip import FRAME_HEIGHT_PX, FRAME_WIDTH_PX

from .face import TalkingFace

LANDMARK_ERROR_PX = 0.4  # a detector's, in pixels of the frame


@dataclass(frozen=True)
class Camera:
    """A slow pan, zoom and roll, and changing light. Every value is a sinusoid with its own speed and phase."""

    scale: float
    contrast: np.ndarray
    rates_hz: np.ndarray
    phases: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> Camera:
        gain = rng.uniform(0.8, 1.15) * rng.uniform(0.94, 1.06, 3)
        return cls(rng.uniform(1.5, 2.6), gain, rng.uniform(0.1, 0.5, 5), rng.uniform(0, 2 * math.pi, 5))

    def _swing(self, index: int, seconds: float) -> float:
        return math.sin(2 * math.pi * self.rates_hz[index] * seconds + self.phases[index])

    def matrix(self, seconds: float) -> np.ndarray:
        """(2, 3): pixels of the picture to pixels of the frame."""
        center = np.array([225 + 12 * self._swing(0, seconds), 145 + 9 * self._swing(1, seconds)])
        scale, angle = self.scale * (1 + 0.06 * self._swing(2, seconds)), math.radians(6 * self._swing(3, seconds))
        linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return np.column_stack([linear, np.array([FRAME_WIDTH_PX / 2, FRAME_HEIGHT_PX / 2]) - linear @ center])

    def light(self, frame: np.ndarray, seconds: float) -> np.ndarray:
        return frame * self.contrast * (1 + 0.04 * self._swing(4, seconds))


def render(face: TalkingFace, heads: list[np.ndarray], camera: Camera, rate: float) -> list[np.ndarray]:
    """Frames uint8 (height, width, 3) of heads from `TalkingFace.speak`."""
    frames: list[np.ndarray] = []
    for i, head in enumerate(heads):
        matrix = camera.matrix(i / rate) @ np.vstack([face.head_matrix(), [0, 0, 1]])
        frame = cv2.warpAffine(
            head, matrix, (FRAME_WIDTH_PX, FRAME_HEIGHT_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        frames.append(camera.light(frame, i / rate).clip(0, 255).astype(np.uint8))
    return frames


def crop_matrices(face: TalkingFace, camera: Camera, count: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """(count, 2, 3): frame to crop, from landmarks with a detector's error and one of the pipeline's smoothings."""
    points = np.stack([face.landmarks[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])
    matrices = [camera.matrix(i / rate) for i in range(count)]
    seen = np.stack([points @ matrix[:, :2].T + matrix[:, 2] for matrix in matrices])
    smoothing = "official" if rng.random() < 0.5 else "zero-lag"
    error = LANDMARK_ERROR_PX * (1.0 if smoothing == "official" else 0.3)
    return alignment.affine_matrices(seen + rng.normal(0, error, seen.shape), RESOLUTION, smoothing=smoothing)


def crops(frames: list[np.ndarray], matrices: np.ndarray) -> np.ndarray:
    """uint8 (frames, 3, 128, 128)."""
    pairs = zip(frames, matrices, strict=True)
    return np.stack([alignment.crop(frame, matrix, RESOLUTION) for frame, matrix in pairs])
