"""Occlusion masks of a face track: the pixels of each frame where something is in front of the face.

The segmenter alone is not reliable, because it can mark teeth as objects, and hands as faces. A pixel therefore counts
as an object only if two conditions are true. The segmenter finds an object, and the colors differ from the earlier
colors at this place of the aligned face. Inside the face, a high score of the segmenter is enough. The module then
aligns the masks to the edges of the image, and smooths the masks over time.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from itertools import chain, islice, pairwise
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from threading import Lock

import numpy as np

from ..errors import StorageError, reason_of
from ..prefetch import prefetch
from ..video.color import to_uint8
from .alignment import BORDER_GRAY, affine_matrices, crop_size, keep_mask, track_matrices
from .face_track import FaceTrack, runs
from .segmenters import Segmenter
from .warp import crop_bounds, is_empty, offset_matrix, opencv, transform_points, warp_to_box, warp_to_crop

MASK_RESOLUTION = 256
MASK_SIZE = crop_size(MASK_RESOLUTION)  # width and height of a mask in pixels: 210 x 280
VIEW_PX = 420  # side of the segmenter's view: the crop, and half of its height more for head and neck
CROP_IN_VIEW = tuple(slice((VIEW_PX - side) // 2, (VIEW_PX + side) // 2) for side in MASK_SIZE[::-1])

HISTORY_FRAMES = 50  # frames in the mean color of a place
MIN_DEVIATION = 6.0  # smallest standard deviation of a place's color, in levels of 255
CHANGED_DEVIATIONS = (1.5, 4.0)  # from the mean color. Below the first: the same color. Above the second: another one
COLOR_BLUR_PX = 2.0  # hides camera noise and small errors of the alignment
FIRST_SCORES = (0.3, 1.0)  # assumed scores before the first frame: inside and outside the face
SURE = 0.4  # score * surprise. A part with enough pixels above this is an object
THRESHOLD = (0.1, 0.3)  # around such pixels, the mask rises from 0 to 1 between these values

AVERAGE_BOX = np.array([[5.0, 15.0], [205.0, 235.0]])  # corners of a face's box, pixels of the mask
FACE_MARGIN = 0.8  # of the face's box. The ellipse of this size contains only the face
LIPS_CENTER, LIPS_AXES = (105, 177), (54, 40)  # in pixels of the mask: the lips of a talking face
LIPS_DOUBT = 0.1  # extra evidence for an object at the lips, so that teeth are not part of a microphone
MIN_AREA_PX = 250  # of an object, both inside the oval and outside the lips. A finger has 1000
LINE_RADIUS_PX = 5  # narrower parts are the moving outline of the jaw
EDGE_RADIUS_PX, EDGE_VARIANCE = 6, 25.0  # of the guided filter that aligns the mask to edges. In squared levels
EDGE_LEVELS = (0.1, 0.9)  # of the filtered mask. Lower: the face. Higher: the object
REACH_PX = 12  # largest movement of an object's edge in two frames
STEADY_STEP = 0.5  # larger changes between frames are movements, which are not averaged
MAX_RAM_BYTES = 32 * 2**20  # of compressed masks. A minute with an object in every frame takes about 7 MB
LEVELS = 63  # largest level of a stored mask
MIN_OPACITY = 0.02  # weaker masks are not stored
MIN_COVERAGE = 0.005  # smallest share of the mouth area for a frame in the report


class OcclusionMasks:
    """The compressed masks of a track. Masks of more than MAX_RAM_BYTES are in a temporary file.

    Args:
        frame_count: number of frames in the source.
        folder: folder of the temporary file. None: the system's temporary folder.
    """

    def __init__(self, frame_count: int, folder: Path | None = None) -> None:
        self._places = np.zeros((frame_count, 2), np.int64)  # start and length in the file
        self.coverage = np.zeros(frame_count, np.float32)
        self._folder = folder
        self._file = SpooledTemporaryFile(MAX_RAM_BYTES, dir=folder and str(folder))  # noqa: SIM115 - closed with the last reference
        self._lock = Lock()  # two runs may read at the same time

    def add(self, frame: int, mask: np.ndarray) -> None:
        """Store the mask of a frame, float32 (280, 210) in [0, 1], and the share of the mouth area that it covers.

        Raises:
            StorageError: the folder of the temporary file is full or not writable.
        """
        if float(mask.max()) < MIN_OPACITY:
            return
        content = zlib.compress(np.rint(mask * LEVELS).astype(np.uint8).tobytes())
        try:
            with self._lock:
                start = self._file.seek(0, 2)
                self._file.write(content)
        except OSError as cause:
            raise StorageError(
                f"{self._folder or gettempdir()} cannot store the masks of objects in front of the face "
                f"({reason_of(cause)}). Free {len(self._places) * len(content) / 2**20:.0f} MB in this folder, and "
                "check that it is writable."
            ) from cause
        self._places[frame] = start, len(content)
        mouth = mouth_area()
        self.coverage[frame] = float((mask * mouth).sum() / mouth.sum())

    def __getitem__(self, frame: int) -> np.ndarray | None:
        """float32 (280, 210) in [0, 1], 1 where the original pixels stay. None if nothing is in front of the face."""
        start, length = self._places[frame].tolist()
        if length == 0:
            return None
        with self._lock:
            self._file.seek(start)
            content = self._file.read(length)
        levels = np.frombuffer(zlib.decompress(content), np.uint8).reshape(MASK_SIZE[::-1])
        return levels * np.float32(1 / LEVELS)

    @property
    def is_covered(self) -> np.ndarray:
        """bool (frames,): whether something covers a part of the mouth area in a source frame."""
        return self.coverage > MIN_COVERAGE

    def __repr__(self) -> str:
        return f"OcclusionMasks({int(self.is_covered.sum())} of {len(self._places)} frames)"


def visible_face(masks: OcclusionMasks, frame: int, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Where a new face is visible in a source frame: float32 (H, W), 0 behind an object. None if there is no object.

    Args:
        matrix: (2, 3), frame pixels to the crop of MASK_SIZE.
        size: height and width of the frame.
    """
    mask = masks[frame]
    if mask is None:
        return None
    visible = np.ones(size, np.float32)
    box = crop_bounds(matrix, MASK_SIZE, size)
    visible[box] -= warp_to_box(mask, matrix, box, outside=0)
    return visible


def collect_masks(
    masks: Iterable[tuple[int, np.ndarray]], track: FaceTrack, params: dict[str, object], folder: Path | None = None
) -> FaceTrack:
    """A copy of the track with its masks. `masks` are the result of `occlusion_masks`."""
    collected = OcclusionMasks(track.source.frame_count, folder)
    for frame, mask in masks:
        collected.add(frame, mask)
    return replace(track, occlusion=collected, params={**track.params, **params})


def occlusion_masks(track: FaceTrack, segmenter: Segmenter) -> Generator[tuple[int, np.ndarray], None, None]:
    """Find objects in front of the face in each frame of a track.

    The function learns the colors of the face again in each shot. Only a few frames are in RAM, for a video of any
    length.

    Yields:
        The number of each frame with the face, and its mask: float32 (280, 210) in [0, 1]. 1: an object is in front.
    """
    matrices, present, shots = track_matrices(track, MASK_RESOLUTION), np.flatnonzero(track.present), track.shots
    square = affine_matrices(track.points, MASK_RESOLUTION, frozenset(track.cuts), track.smoothing)
    boxes = [None] * len(shots) if track.boxes is None else track.boxes
    with closing(prefetch(track.source.read(present.tolist()))) as frames:
        model, shot = None, -1
        for run in _runs_in_shots(track):
            if model is None or shots[run.start] != shot:
                first_oval = _face_oval(boxes[run.start], square[run.start])
                model, shot = FaceModel(first_oval), shots[run.start]
            masks = (
                find_objects(face_view(frame, matrices[i]), segmenter, model, _face_oval(boxes[i], square[i]))
                for i, frame in zip(run, islice(frames, len(run)), strict=True)
            )
            yield from zip(run, steady(masks), strict=True)


def _runs_in_shots(track: FaceTrack) -> Iterator[range]:
    """Ranges of consecutive frames of one shot with the face."""
    for run in runs(track.present):
        edges = [run.start, *(cut for cut in track.cuts if run.start < cut < run.stop), run.stop]
        yield from (range(start, stop) for start, stop in pairwise(edges))


def face_view(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The segmenter's view of a face: uint8 (420, 420, 3), upright, with the crop in its middle.

    Args:
        frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
        matrix: (2, 3), frame pixels to the crop of MASK_SIZE.
    """
    to_view = np.array(matrix, np.float64)
    to_view[:, 2] += [side.start for side in CROP_IN_VIEW[::-1]]
    bounds = crop_bounds(to_view, (VIEW_PX, VIEW_PX), (frame.shape[0], frame.shape[1]))
    if is_empty(bounds):
        return np.full((VIEW_PX, VIEW_PX, 3), BORDER_GRAY, np.uint8)
    pixels, to_view = to_uint8(frame[bounds]), offset_matrix(to_view, bounds)
    factor = int(abs(np.linalg.det(to_view[:, :2])) ** -0.5)  # frame pixels per pixel of the view
    if factor > 1:
        height, width = (max(side // factor, 1) for side in pixels.shape[:2])
        pixels = pixels[: height * factor, : width * factor]
        pixels = opencv().resize(pixels, (width, height), interpolation=opencv().INTER_AREA)
        to_view = to_view @ np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    return warp_to_crop(pixels, to_view, (VIEW_PX, VIEW_PX), BORDER_GRAY)


def _face_oval(box: np.ndarray | None, matrix: np.ndarray) -> np.ndarray:
    """bool (280, 210): the part of the crop that contains only the face.

    Args:
        box: float64 (4,), square pixels of the frame. None takes the box of an average face.
        matrix: (2, 3), square pixels of the frame to the crop of MASK_SIZE.
    """
    corners = AVERAGE_BOX if box is None else transform_points(box.reshape(2, 2), matrix)
    center, axes = corners.mean(axis=0), np.abs(corners[1] - corners[0]) / 2 * FACE_MARGIN
    return _ellipse(center, axes)


def _ellipse(center: Sequence[float] | np.ndarray, axes: Sequence[float] | np.ndarray) -> np.ndarray:
    """bool (280, 210): the inside of an upright ellipse, pixels of the mask."""
    y, x = np.ogrid[: MASK_SIZE[1], : MASK_SIZE[0]]
    return ((x - center[0]) / axes[0]) ** 2 + ((y - center[1]) / axes[1]) ** 2 < 1


class FaceModel:
    """The usual color and score of each place of the aligned face, without objects in front of the face.

    Args:
        oval: bool (280, 210): the part that contains only the face. The oval sets the initial scores.
    """

    def __init__(self, oval: np.ndarray) -> None:
        width, height = MASK_SIZE
        self._color = np.zeros((height, width, 3), np.float32)
        self._variance = np.zeros((height, width, 3), np.float32)
        self._score = np.where(oval, *FIRST_SCORES).astype(np.float32)
        self._count = np.zeros((height, width), np.float32)

    def surprise(self, colors: np.ndarray, score: np.ndarray) -> np.ndarray:
        """The difference of each place from its usual color and score: float32 (280, 210) in [0, 1].

        Args:
            colors: float32 (280, 210, 3), levels of 255.
            score: float32 (280, 210), the score of the segmenter.
        """
        deviations = np.abs(colors - self._color) / np.sqrt(self._variance + MIN_DEVIATION**2)
        change = _smoothstep(deviations.max(axis=-1), *CHANGED_DEVIATIONS) * (self._count > 0)
        return np.maximum(change, score - self._score)

    def learn(self, colors: np.ndarray, score: np.ndarray, doubt: np.ndarray, is_object: np.ndarray) -> None:
        """Update the means, slowly where `doubt` is true, and not where `is_object` is true.

        Both are bool (280, 210).
        """
        self._count += ~is_object
        doubt = doubt & (self._count > 1)
        weight = np.where(doubt, 1 / HISTORY_FRAMES, 1 / self._count.clip(1, HISTORY_FRAMES))
        weight = (weight * ~is_object).astype(np.float32)
        self._score += weight * (score - self._score)
        weight = weight[..., None]
        difference = colors - self._color
        limit = CHANGED_DEVIATIONS[1] * np.sqrt(self._variance + MIN_DEVIATION**2)
        difference = np.where(doubt[..., None], difference.clip(-limit, limit), difference)
        self._color += weight * difference
        self._variance += weight * ((1 - weight) * difference**2 - self._variance)


def find_objects(view: np.ndarray, segmenter: Segmenter, model: FaceModel, oval: np.ndarray) -> np.ndarray:
    """The mask of one frame, before `steady`: float32 (280, 210) in [0, 1]. The model learns from the frame.

    Args:
        view: see `face_view`.
        oval: bool (280, 210): the part that contains only the face.
    """
    cv2 = opencv()
    crop = np.ascontiguousarray(view[CROP_IN_VIEW])
    score = segmenter.score(view)[CROP_IN_VIEW]
    colors = cv2.GaussianBlur(crop.astype(np.float32), (0, 0), COLOR_BLUR_PX)
    evidence = cv2.morphologyEx(score * model.surprise(colors, score), cv2.MORPH_OPEN, _disk(LINE_RADIUS_PX))
    candidates = _smoothstep(evidence - LIPS_DOUBT * _ellipse(LIPS_CENTER, LIPS_AXES), *THRESHOLD)
    mask = _keep_objects(candidates, evidence > SURE, oval)
    doubt, is_object = (cv2.dilate(image, _disk(EDGE_RADIUS_PX)) > MIN_OPACITY for image in (candidates, mask))
    model.learn(colors, score, doubt, is_object)
    if mask.any():
        guide = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
        mask = _smoothstep(guided_filter(guide, mask), *EDGE_LEVELS)
    return mask


def _keep_objects(candidates: np.ndarray, sure: np.ndarray, oval: np.ndarray) -> np.ndarray:
    """Remove the parts of a mask that are not objects: specks, the neck, teeth and the tongue.

    An object has enough pixels inside the oval of the face, and enough pixels outside the lips.

    Args:
        candidates: float32 (280, 210) in [0, 1].
        sure: bool (280, 210): pixels with enough evidence for an object.
        oval: bool (280, 210): the part that contains only the face.
    """
    cv2 = opencv()
    count, labels = cv2.connectedComponents((candidates > 0.5).astype(np.uint8))
    zones = (sure & oval, sure & ~_ellipse(LIPS_CENTER, LIPS_AXES))
    is_object = np.minimum(*(np.bincount(labels[zone], minlength=count) for zone in zones)) >= MIN_AREA_PX
    is_object[0] = False
    return candidates * cv2.dilate(is_object[labels].astype(np.uint8), _disk(EDGE_RADIUS_PX))


def guided_filter(guide: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Align the edges of a mask to the edges of an image, both float32 (h, w). See He, Sun and Tang (2010).

    Args:
        guide: gray image, levels of 255.
        mask: in [0, 1].
    """
    size = (2 * EDGE_RADIUS_PX + 1,) * 2
    mean_guide, mean_mask, mean_product, mean_square = (
        opencv().blur(image, size) for image in (guide, mask, guide * mask, guide * guide)
    )
    slope = (mean_product - mean_guide * mean_mask) / (mean_square - mean_guide**2 + EDGE_VARIANCE)
    offset = mean_mask - slope * mean_guide
    return opencv().blur(slope, size) * guide + opencv().blur(offset, size)


def steady(masks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Smooth the masks of consecutive frames over time: float32 (h, w) each, in [0, 1]. Five masks are in RAM.

    Parts without a mask near them within two frames disappear. The function fills in parts that an earlier and a later
    mask contain. The function averages parts that do not move over three frames.
    """
    cv2 = opencv()
    window: deque[np.ndarray | None] = deque([None, None], maxlen=5)
    for entering in chain(masks, (None, None)):
        window.append(entering)
        if len(window) < 5 or window[2] is None:
            continue
        mask, before, after = window[2], _union(window[0], window[1]), _union(window[3], window[4])
        near = _union(before, after)
        if near is not None:
            mask = np.minimum(mask, cv2.dilate(near, _disk(REACH_PX)))
        if before is not None and after is not None:
            mask = np.maximum(mask, np.minimum(before, after))
        if window[1] is not None and window[3] is not None:
            steps = window[1] - mask, window[3] - mask
            is_slow = np.maximum(np.abs(steps[0]), np.abs(steps[1])) < STEADY_STEP
            mask = mask + is_slow * (steps[0] + steps[1]) / 4
        yield mask


def _union(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return np.maximum(a, b) if a is not None and b is not None else a if b is None else b


def _disk(radius_px: int) -> np.ndarray:
    size = 2 * radius_px + 1
    return opencv().getStructuringElement(opencv().MORPH_ELLIPSE, (size, size))


def _smoothstep(values: np.ndarray, start: float, stop: float) -> np.ndarray:
    ramp = ((values - start) / (stop - start)).clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


@cache
def mouth_area() -> np.ndarray:
    """bool (280, 210): the area in which the model generates a new mouth."""
    keep = opencv().resize(keep_mask(MASK_RESOLUTION), MASK_SIZE, interpolation=opencv().INTER_LINEAR)
    return keep < 0.5
