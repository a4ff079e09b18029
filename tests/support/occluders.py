"""Objects moved across real faces with known masks, and a segmenter that knows them and makes a real one's errors.

The real segmenter's file is not part of the tests: the stand-in knows the drawn object, and gives it a soft, jittering
outline, a changing certainty, dropouts, specks, patches on beards, and teeth that it takes for objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import mediapipe
import numpy as np

from latentsync.faces.alignment import track_matrices
from latentsync.faces.face_track import FaceTrack, smooth
from latentsync.faces.mediapipe_detector import face_from_mesh
from latentsync.faces.occlusion import CROP_IN_VIEW, MASK_RESOLUTION, MASK_SIZE, face_view, mouth_area, occlusion_masks
from latentsync.faces.warp import warp_to_frame
from latentsync.video.video_file import VideoFile
from tests.support.heads import HEADS
from tests.support.image_clip import Clip

SIDE_PX = 400
KINDS = ("hand", "microphone", "beard")
FACE_OUTLINE = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)
FACE_OUTLINE += (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
OPEN_MOUTH = 0.1  # opening / width: from here on, teeth show
LOWER_LIP, NOSE_TIP = 17, 1


@dataclass(frozen=True, eq=False)
class Occluded:
    """A face with an object in front of it.

    track: of the frames with the object. The face was found without it.
    objects: float32 (n, H, W) in [0, 1], the object in each frame. A beard is no object.
    scores: float32 (n, H, W) in [0, 1], what the stand-in says of each pixel.
    meshes: float32 (n, 478, 2), pixels.
    """

    track: FaceTrack
    objects: np.ndarray
    scores: np.ndarray
    meshes: np.ndarray

    def in_crops(self, images: np.ndarray) -> np.ndarray:
        """Images (n, H, W) in [0, 1] in the aligned crops: float32 (n, 280, 210)."""
        return np.stack([view[CROP_IN_VIEW] for view in self.views(images)])

    def views(self, images: np.ndarray) -> list[np.ndarray]:
        """Images (n, H, W) in [0, 1] as the segmenter's views: float32 (420, 420) each."""
        matrices = track_matrices(self.track, MASK_RESOLUTION)
        colors = (np.rint(image * 255).astype(np.uint8)[..., None].repeat(3, axis=-1) for image in images)
        pairs = zip(colors, matrices, strict=True)
        return [face_view(image, matrix)[..., 0].astype(np.float32) / 255 for image, matrix in pairs]


class StandIn:
    """A segmenter that gives known scores, one view after the other."""

    def __init__(self, occluded: Occluded) -> None:
        self._scores = iter(occluded.views(occluded.scores))

    def score(self, view: np.ndarray) -> np.ndarray:
        return next(self._scores)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Quality:
    """How masks (n, 280, 210) compare with the objects, in the part of the face where the model paints a mouth.

    iou: intersection over union of both masks above 0.5, over all frames. NaN without an object.
    flicker: mean change of the error from frame to frame, in percent of this part.
    lips_kept: share of the visible lips that the mask keeps from changing.
    """

    iou: float
    flicker: float
    lips_kept: float


def quality(occluded: Occluded, masks: np.ndarray) -> Quality:
    objects = occluded.in_crops(occluded.objects)
    face = (occluded.in_crops(polygons(occluded, FACE_OUTLINE)) > 0.5) & mouth_area()
    found, drawn = face & (masks > 0.5), face & (objects > 0.5)
    union = (found | drawn).sum()
    error = (masks - objects) * face
    lips = occluded.in_crops(polygons(occluded, LIPS)) * (1 - objects) * face
    return Quality(
        iou=float((found & drawn).sum() / union) if drawn.any() else float("nan"),
        flicker=float(100 * np.abs(np.diff(error, axis=0)).sum() / face[1:].sum()),
        lips_kept=float((lips * masks).sum() / lips.sum()),
    )


def polygons(occluded: Occluded, points: tuple[int, ...]) -> np.ndarray:
    """A part of the face in each frame: float32 (n, H, W)."""
    return np.stack([_filled(mesh[list(points)]) for mesh in occluded.meshes])


@cache
def head(model: Path, video: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first frames of a head, uint8 (count, side, side, 3), and its meshes, float32 (count, 478, 2)."""
    tasks = mediapipe.tasks
    options = tasks.vision.FaceLandmarkerOptions(tasks.BaseOptions(model_asset_buffer=model.read_bytes()), num_faces=1)
    rows, columns = HEADS[video.name.partition("_")[0]]
    frames, meshes = [], []
    with tasks.vision.FaceLandmarker.create_from_options(options) as landmarker:
        for frame in VideoFile(video).read(range(count)):
            small = cv2.resize(frame[rows, columns], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
            (face,) = landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, small)).face_landmarks
            frames.append(small)
            meshes.append([(SIDE_PX * point.x, SIDE_PX * point.y) for point in face])
    return np.stack(frames), np.array(meshes, np.float32)


def occluded(shared: Path, clip: str, kind: str, count: int) -> Occluded:
    """Move an object of a kind across the mouth of a clip's first frames."""
    model, video = shared / "models/face_landmarker.task", shared / f"media/{clip}_video.mp4"
    frames, meshes = head(model, video, count)
    faces = [face_from_mesh(mesh) for mesh in meshes]
    points, boxes = (
        np.stack([part(face) for face in faces]) for part in (lambda f: f.points, lambda f: np.array(f.box))
    )
    still = FaceTrack(Clip(frames), smooth(points), smoothing="zero-lag", boxes=boxes)
    random = np.random.default_rng(KINDS.index(kind))
    skin = frames[0][tuple(meshes[0][NOSE_TIP].astype(int)[::-1])].astype(np.float32)
    matrices = track_matrices(still, MASK_RESOLUTION)
    pictures, alphas = [], []
    for i, frame in enumerate(frames):
        phase, lips = i / max(count - 1, 1), meshes[i][LOWER_LIP]
        if kind == "beard":
            color, alpha = _beard(phase, matrices[i])
        else:
            color, alpha = (_hand if kind == "hand" else _microphone)(phase, lips, skin)
        pictures.append(np.rint(frame + alpha[..., None] * (color - frame)).clip(0, 255).astype(np.uint8))
        alphas.append(alpha)
    track = FaceTrack(Clip(np.stack(pictures)), still.points, smoothing="zero-lag", boxes=boxes)
    drawn = np.stack(alphas)
    objects = np.zeros_like(drawn) if kind == "beard" else drawn
    scores = np.stack([_score(random, *each) for each in zip(meshes, faces, drawn, objects, strict=True)])
    return Occluded(track, objects, scores, meshes)


def _score(
    random: np.random.Generator, mesh: np.ndarray, face: object, drawn: np.ndarray, alpha: np.ndarray
) -> np.ndarray:
    """What a real segmenter may say of a frame: float32 (H, W)."""
    below_brows = np.arange(SIDE_PX)[:, None] > mesh[NOSE_TIP][1]
    score = np.where(below_brows, 0.95, 0.1) * (1 - _filled(mesh[list(FACE_OUTLINE)])) + 0.05
    jitter, grow = random.normal(0, 1.5, 2), int(random.integers(-2, 3))
    moved = cv2.warpAffine(alpha, np.array([[1, 0, jitter[0]], [0, 1, jitter[1]]]), (SIDE_PX, SIDE_PX))
    moved = (cv2.dilate if grow > 0 else cv2.erode)(moved, np.ones((2 * abs(grow) + 1,) * 2))
    certainty = random.uniform(0.8, 0.98) * (0.4 if random.random() < 0.08 else 1)  # a dropout
    score = np.maximum(score * (1 - moved), certainty * moved)
    if (face.mouth_opening or 0) > OPEN_MOUTH:  # teeth
        score = np.maximum(score, random.uniform(0.5, 0.85) * _filled(mesh[list(INNER_LIPS)]) * (1 - alpha))
    if random.random() < 0.05:  # a speck
        spot = mesh[random.integers(0, 468)] + random.normal(0, 5, 2)
        score = np.maximum(score, 0.9 * _disk(spot, random.uniform(6, 12)))
    if drawn.any() and not alpha.any():  # patches of the beard
        for place in (152, 172, 397, 18):
            score = np.maximum(score, random.uniform(0.5, 0.75) * _disk(mesh[place], 18) * drawn)
    blurred = cv2.GaussianBlur(score.astype(np.float32), (0, 0), 2.5)
    return (blurred + random.normal(0, 0.03, blurred.shape)).clip(0, 1).astype(np.float32)


def _hand(phase: float, lips: np.ndarray, skin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Four fingers and a palm in the color of the face, from the lower left to the upper right and away."""
    across = np.interp(phase, (0, 0.15, 0.35, 0.7, 0.95, 1), (-260, -260, -40, 10, 260, 260))
    palm = lips + np.array([across - 20, 20 - 0.1 * across])
    alpha = _disk(palm, 48)
    for finger in range(4):
        tip = palm + np.array([70 + 6 * finger, -62 + 28 * finger])
        line = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        cv2.line(line, tuple(palm.astype(int).tolist()), tuple(tip.astype(int).tolist()), 255, 20, cv2.LINE_AA)
        alpha = np.maximum(alpha, line.astype(np.float32) / 255)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.8)
    shade = cv2.GaussianBlur(alpha, (0, 0), 7)[..., None] * 0.35 + 0.65  # darker at the outline
    return skin * shade * (1 + 0.06 * _texture(palm)[..., None]), alpha


def _microphone(phase: float, lips: np.ndarray, skin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A gray ball with a grid, and a black handle below it: comes up, stays below the upper lip, and leaves."""
    down = np.interp(phase, (0, 0.15, 0.4, 0.8, 1), (240, 240, 8, 14, 240))
    center = lips + np.array([8 * np.sin(12 * phase), down])
    ball = _disk(center, 34)
    handle = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    start, stop = ((center + np.array(end)).astype(int).tolist() for end in ((4, 20), (40, 400)))
    cv2.line(handle, tuple(start), tuple(stop), 255, 30, cv2.LINE_AA)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    grid = 110 + 45 * np.sin((x - center[0]) * 0.9) * np.sin((y - center[1]) * 0.9)
    color = np.where(ball > 0.5, grid, 25.0)[..., None].repeat(3, axis=-1)
    return color, cv2.GaussianBlur(np.maximum(ball, handle.astype(np.float32) / 255), (0, 0), 0.8)


def _beard(phase: float, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dark hair around the mouth, on the face, which shifts a little with the jaw."""
    width, height = MASK_SIZE
    hair = np.zeros((height, width), np.uint8)
    cv2.ellipse(hair, (width // 2, 172), (78, 72), 0, -10, 190, 255, -1, cv2.LINE_AA)
    cv2.ellipse(hair, (width // 2, 150), (58, 16), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(hair, (width // 2, 177), (48, 30), 0, 0, 360, 0, -1, cv2.LINE_AA)
    shift = np.array(matrix)
    shift[:, 2] += 4 * np.sin(20 * phase), 3 * np.cos(15 * phase)
    size = (SIDE_PX, SIDE_PX)
    alpha = warp_to_frame(cv2.GaussianBlur(hair, (0, 0), 3).astype(np.float32) / 255, shift, size, 0)
    noise = np.random.default_rng(5).normal(0, 1, (height, width)).astype(np.float32)
    strands = warp_to_frame(cv2.GaussianBlur(noise, (0, 0), sigmaX=0.8, sigmaY=3), shift, size, 0)
    return np.array((52, 38, 28)) + 40 * strands[..., None], 0.9 * alpha


def _texture(origin: np.ndarray) -> np.ndarray:
    """Smooth noise that moves with `origin`: float32 (side, side), standard deviation 1."""
    noise = np.random.default_rng(9).normal(0, 1, (SIDE_PX, SIDE_PX)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.roll(noise / noise.std(), origin.astype(int)[::-1].tolist(), axis=(0, 1))


def _disk(center: np.ndarray, radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    return (radius + 0.5 - np.hypot(x - center[0], y - center[1])).clip(0, 1).astype(np.float32)


def _filled(points: np.ndarray) -> np.ndarray:
    image = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.fillPoly(image, [points.astype(np.int32)], 255, cv2.LINE_AA)
    return image.astype(np.float32) / 255


def check_occlusion(shared: Path, clip: str, kind: str, count: int) -> None:
    """The masks of a clip meet the measured quality with some room, and are better than the segmenter alone."""
    made = occluded(shared, clip, kind, count)
    masks = np.stack([mask for _, mask in occlusion_masks(made.track, StandIn(made))])
    ours, alone = quality(made, masks), quality(made, (made.in_crops(made.scores) > 0.5).astype(np.float32))
    print(f"{clip} {kind}, {count} frames: {ours}; the segmenter alone: {alone}")
    assert ours.lips_kept < 0.06 < alone.lips_kept
    assert ours.flicker < alone.flicker
    if kind == "beard":
        assert ours.lips_kept < 0.002
        assert ours.flicker < 0.6
    else:
        assert ours.iou > max(0.8, alone.iou)
