"""Draw the picture of docs/guide.md: a microphone in front of a mouth, without and with `occlusion`.

The footage is the demo's sample clip with a drawn microphone. The lips come from the demo's small model. The segmenter
is a stand-in that knows the drawing: MediaPipe's file is not part of the repository.

Usage: python -m scripts.occlusion_picture [FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from latentsync import ImageBatch, LipSyncPipeline, VideoFile, Waveform, detect_faces, select_face
from latentsync.faces.alignment import track_matrices
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.occlusion import MASK_RESOLUTION, collect_masks, face_view, occlusion_masks
from latentsync.weights.locate import folders_in
from scripts.comfyui import REPOSITORY
from scripts.sample_clip import FRAME_RATE, SAMPLE_RATE, camera_path, face_landmarks, speech, write_video

FRAMES, SHOWN, FIRST = 16, 12, 5  # in all, the frame of the picture, and the first with the microphone
LOWER_LIP = 17  # of the face mesh
BALL_PX, HANDLE_PX = 26, 22
PART = (slice(60, 400), slice(95, 385))  # of the frame
GAP_PX = 8
JPEG_QUALITY = 88

Array = npt.NDArray[np.float32]


class KnownObject:
    """A segmenter that knows where the microphone is."""

    def __init__(self, objects: Iterable[Array], track: FaceTrack) -> None:
        pairs = zip(objects, track_matrices(track, MASK_RESOLUTION), strict=True)
        self._scores = (face_view(np.repeat(alpha[..., None], 3, axis=2), matrix) for alpha, matrix in pairs)

    def score(self, view: np.ndarray) -> np.ndarray:
        score = next(self._scores)[..., 0].astype(np.float32) / 255
        assert score.shape == view.shape[:2]
        return cv2.GaussianBlur(0.05 + 0.9 * score, (0, 0), 2.5)

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=REPOSITORY / "docs" / "images" / "occlusion.jpg")
    Image.fromarray(draw()).save(parser.parse_args().file, quality=JPEG_QUALITY, optimize=True)


def draw() -> npt.NDArray[np.uint8]:
    """The original frame, the result without `occlusion`, and the result with it, side by side."""
    cameras = camera_path(FRAMES)
    landmarks = face_landmarks(cameras)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        write_video(path, cameras)
        plain = np.stack(list(VideoFile(path).read(range(FRAMES)))).astype(np.float32) / 255
    lips = [np.array(faces[0]["landmarks_xy"])[LOWER_LIP] for faces in landmarks["frames"]]
    drawings = [microphone(plain.shape[1:3], lip, i >= FIRST) for i, lip in enumerate(lips)]
    alphas = [alpha for _, alpha in drawings]
    frames = np.stack([f + a[..., None] * (c - f) for f, (c, a) in zip(plain, drawings, strict=True)])
    source = ImageBatch(torch.from_numpy(frames), Fraction(FRAME_RATE))
    track = select_face(detect_faces(source, folders_in(Path()), landmarks=landmarks)).track
    masked = collect_masks(occlusion_masks(track, KnownObject(alphas, track)), track, {})
    audio = Waveform(torch.from_numpy(speech(FRAMES / FRAME_RATE)).float()[None], SAMPLE_RATE)
    pipeline = LipSyncPipeline.miniature()
    results = [pipeline(source, audio, face=face) for face in (track, masked)]
    shown = [frames[SHOWN], *(list(result.frames())[SHOWN] for result in results)]
    parts = [np.rint(255 * frame[PART]).astype(np.uint8) for frame in shown]
    gap = np.full((parts[0].shape[0], GAP_PX, 3), 255, np.uint8)
    return np.hstack([parts[0], gap, parts[1], gap, parts[2]])


def microphone(size: tuple[int, ...], lip: npt.NDArray[np.float64], is_there: bool) -> tuple[Array, Array]:
    """A gray ball with a grid, and a dark handle: colors (H, W, 3) and opacity (H, W), both in [0, 1]."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    center = lip + np.array([14, 6])
    ball = (BALL_PX + 0.5 - np.hypot(x - center[0], y - center[1])).clip(0, 1)
    handle = np.zeros(size, np.uint8)
    ends = (center + np.array(end) for end in ((6, 18), (60, 400)))
    start, stop = (tuple(end.astype(int).tolist()) for end in ends)
    cv2.line(handle, start, stop, 255, HANDLE_PX, cv2.LINE_AA)
    grid = 0.5 + 0.18 * np.sin((x - center[0]) * 0.9) * np.sin((y - center[1]) * 0.9)
    shade = 1 - 0.5 * ((x - center[0]) / BALL_PX).clip(0, 1)
    color = np.where(ball > 0.5, grid * shade, 0.12)[..., None].repeat(3, axis=2)
    alpha = cv2.GaussianBlur(np.maximum(ball, handle.astype(np.float32) / 255), (0, 0), 0.8)
    return color.astype(np.float32), alpha * is_there


if __name__ == "__main__":
    main()
