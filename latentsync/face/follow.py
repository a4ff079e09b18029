"""The chosen person's face as a `FaceTrack`: short gaps bridged, long ones left alone, the rest steadied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import numpy as np

from ..errors import FaceError, UsageError, check_choice
from ..types import FaceTrack, Smoothing
from .smooth import zero_lag

if TYPE_CHECKING:
    from .people import People, Person


@dataclass(frozen=True, slots=True)
class FollowSettings:
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


def follow(people: People, person: Person, settings: FollowSettings | None = None) -> FaceTrack:
    """The track of one person.

    Raises:
        FaceError: the head is turned beyond the limit in every frame.
    """
    settings = settings or FollowSettings()
    forward = facing(person, settings)
    if not forward.any():
        raise FaceError(
            f"{people.source.name}: the face is turned by more than {settings.max_yaw_degrees:g} degrees in all "
            f"{len(forward)} frames that show it. Raise max_yaw, or choose another face."
        )
    points = np.full((people.source.frame_count, 3, 2), np.nan)
    points[person.frames[forward]] = person.points[forward]
    for first, stop in _shots(people):
        _bridge(points[first:stop], settings.max_gap_frames)
        if settings.smoothing == "zero-lag":
            for run in runs(_present(points[first:stop])):
                points[first:stop][run.start : run.stop] = zero_lag(points[first:stop][run.start : run.stop])
    return FaceTrack(people.source, points, people.cuts, settings.smoothing, asdict(settings))


def facing(person: Person, settings: FollowSettings) -> np.ndarray:
    """bool, one for each frame that shows the person: whether the head is turned no further than the limit."""
    return np.abs(person.yaws) <= settings.max_yaw_degrees


def runs(flags: np.ndarray) -> Iterator[range]:
    """Half-open ranges in which `flags`, bool (n,), are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for first, stop in edges.reshape(-1, 2).tolist():
        yield range(first, stop)


def _shots(people: People) -> list[tuple[int, int]]:
    edges = [0, *people.cuts, people.source.frame_count]
    return list(pairwise(edges))


def _bridge(points: np.ndarray, longest: int) -> None:
    """Fill gaps inside one shot's points (n, 3, 2), in place, by straight lines."""
    for gap in runs(~_present(points)):
        if gap.start > 0 and gap.stop < len(points) and len(gap) <= longest:
            share = (np.arange(1, len(gap) + 1) / (len(gap) + 1))[:, None, None]
            points[gap.start : gap.stop] = (1 - share) * points[gap.start - 1] + share * points[gap.stop]


def _present(points: np.ndarray) -> np.ndarray:
    return np.isfinite(points.sum(axis=(1, 2)))
