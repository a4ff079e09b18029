"""The face track of one identity: gaps filled, yaw limited, points smoothed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..errors import FaceError, UsageError, check_choice

if TYPE_CHECKING:
    from ..video.frame_source import FrameSource
    from .identities import Identities, Identity


Smoothing = Literal["zero-lag", "upstream"]


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One person's face over a source. Holds no pixels: they are read again when needed.

    source: the frames it was measured on.
    points: float64 (frames, 3, 2), pixels: center of the image-left brow, of the image-right brow, of the nose;
        NaN in frames without the face.
    cuts: frames that begin a new shot, the first not counted.
    smoothing: "zero-lag" if the points are steady already, "upstream" if LatentSync's filter is to steady the crop.
    params: whose face it is, and how it was followed.
    """

    source: FrameSource
    points: np.ndarray
    cuts: tuple[int, ...] = ()
    smoothing: Smoothing = "upstream"
    params: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        check_choice("smoothing", self.smoothing, get_args(Smoothing))
        if self.points.shape != (self.source.frame_count, 3, 2):
            raise FaceError(
                f"{self.source.name}: a face track needs points of shape ({self.source.frame_count}, 3, 2), "
                f"not {self.points.shape}"
            )
        if not self.present.any():
            raise FaceError(
                f"{self.source.name}: no face found in any of its {self.source.frame_count} frames. "
                "Use a clip where one face is seen from the front or nearly so, or wire landmarks of your own."
            )

    @property
    def present(self) -> np.ndarray:
        """bool (frames,): whether the face is there."""
        return np.isfinite(self.points.sum(axis=(1, 2)))

    @property
    def shots(self) -> np.ndarray:
        """int64 (frames,): number of the shot that each frame is of, from 0."""
        return np.searchsorted(self.cuts, np.arange(self.source.frame_count), side="right")

    def __repr__(self) -> str:
        return f"FaceTrack({int(self.present.sum())} of {self.source.frame_count} frames, {self.source.name})"


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How a face is followed.

    max_gap_frames: so many frames in a row without the face are bridged by interpolation; longer gaps are left alone.
    max_yaw_degrees: a head turned further is as good as away, up to 90: bridged if briefly, else left alone.
    smoothing: "zero-lag", or "upstream", LatentSync's own causal filter.
    """

    max_gap_frames: int = 8
    max_yaw_degrees: float = 60.0
    smoothing: Smoothing = "zero-lag"

    def __post_init__(self) -> None:
        if self.max_gap_frames < 0:
            raise UsageError(f"max_gap must be at least 0 frames, not {self.max_gap_frames}")
        if not 0 < self.max_yaw_degrees <= 90:
            raise UsageError(f"max_yaw must be above 0 and at most 90 degrees, not {self.max_yaw_degrees}")
        check_choice("smoothing", self.smoothing, get_args(Smoothing))


def build_face_track(people: Identities, person: Identity, settings: TrackSettings | None = None) -> FaceTrack:
    """The track of one person.

    Raises:
        FaceError: the head is turned beyond the limit in every frame.
    """
    settings = settings or TrackSettings()
    forward = within_yaw_limit(person, settings)
    if not forward.any():
        raise FaceError(
            f"{people.source.name}: the face is turned by more than {settings.max_yaw_degrees:g} degrees in all "
            f"{len(forward)} frames that show it. Raise max_yaw, or choose another face."
        )
    points = np.full((people.source.frame_count, 3, 2), np.nan)
    points[person.frames[forward]] = person.points[forward]
    for first, stop in _shots(people):
        _fill_gaps(points[first:stop], settings.max_gap_frames)
        if settings.smoothing == "zero-lag":
            for run in runs(_present(points[first:stop])):
                points[first:stop][run.start : run.stop] = zero_lag(points[first:stop][run.start : run.stop])
    return FaceTrack(people.source, points, people.cuts, settings.smoothing, asdict(settings))


def within_yaw_limit(person: Identity, settings: TrackSettings) -> np.ndarray:
    """bool, one for each frame that shows the person: whether the head is turned no further than the limit."""
    return np.abs(person.yaws) <= settings.max_yaw_degrees


def runs(flags: np.ndarray) -> Iterator[range]:
    """Half-open ranges in which `flags`, bool (n,), are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for first, stop in edges.reshape(-1, 2).tolist():
        yield range(first, stop)


def _shots(people: Identities) -> list[tuple[int, int]]:
    edges = [0, *people.cuts, people.source.frame_count]
    return list(pairwise(edges))


def _fill_gaps(points: np.ndarray, longest: int) -> None:
    """Fill gaps inside one shot's points (n, 3, 2), in place, by straight lines."""
    for gap in runs(~_present(points)):
        if gap.start > 0 and gap.stop < len(points) and len(gap) <= longest:
            share = (np.arange(1, len(gap) + 1) / (len(gap) + 1))[:, None, None]
            points[gap.start : gap.stop] = (1 - share) * points[gap.start - 1] + share * points[gap.stop]


def _present(points: np.ndarray) -> np.ndarray:
    return np.isfinite(points.sum(axis=(1, 2)))


HALF_WINDOW_FRAMES = 4


DEGREE = 2


def zero_lag(points: np.ndarray) -> np.ndarray:
    """Points (n, ...) of consecutive frames, steadied: the same shape.

    The ends take the curves of the first and the last window; runs of up to three frames are left as they are.
    """
    count = len(points)
    width = min(2 * HALF_WINDOW_FRAMES + 1, count - 1 + count % 2)
    if width <= DEGREE + 1:
        return points
    half, hat = width // 2, _hat(width)
    flat = points.reshape(count, -1)
    around = np.lib.stride_tricks.sliding_window_view(flat, width, axis=0)
    steady = np.concatenate([hat[:half] @ flat[:width], around @ hat[half], hat[-half:] @ flat[-width:]])
    return steady.reshape(points.shape)


def _hat(width: int) -> np.ndarray:
    """(width, width): from values to those of the quadratic through them."""
    powers = np.vander(np.arange(width) - width // 2, DEGREE + 1)
    return powers @ np.linalg.pinv(powers)
