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
    from .occlusion import OcclusionMasks

Smoothing = Literal["zero-lag", "official"]

SMOOTHING_WINDOW_FRAMES = 9
SMOOTHING_DEGREE = 2


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """The face of one person in every frame of a source. The track has no pixels. Functions that need pixels read the
    frames again.

    source: the frames that show the face.
    points: float64 (frames, 3, 2), square pixels, see `warp.square_pixels`: left eyebrow, right eyebrow and nose. NaN
        in frames without the face.
    cuts: the first frame of every shot, except the first shot.
    smoothing: "zero-lag" if the points are smooth already, "official" if `alignment` applies LatentSync's filter.
    params: settings of this track, for the run record.
    boxes: float64 (frames, 4), square pixels: x0, y0, x1, y1 around the face. NaN in frames without the face. Only
        scoring and occlusion need the boxes.
    mouth_openings: float64 (frames,), see `FaceDetection`. NaN where unknown. Only scoring needs the openings.
    occlusion: masks of the objects in front of the face. None: not searched.
    """

    source: FrameSource
    points: np.ndarray
    cuts: tuple[int, ...] = ()
    smoothing: Smoothing = "official"
    params: Mapping[str, object] = field(default_factory=dict[str, object])
    boxes: np.ndarray | None = None
    mouth_openings: np.ndarray | None = None
    occlusion: OcclusionMasks | None = None

    def __post_init__(self) -> None:
        check_choice("smoothing", self.smoothing, get_args(Smoothing))
        if self.points.shape != (self.source.frame_count, 3, 2):
            raise FaceError(
                f"Internal error: the points of the face do not fit the {self.source.frame_count} frames of "
                f"{self.source.name}. Please report this."
            )
        if not self.present.any():
            raise FaceError(
                f"{self.source.name} has {self.source.frame_count} frames, but LatentSync found no face in any of "
                "them. Use a video with a face that looks towards the camera, or provide face landmarks."
            )

    @property
    def present(self) -> np.ndarray:
        """bool (frames,): whether the frame shows the face."""
        return has_points(self.points)

    @property
    def shots(self) -> np.ndarray:
        """int64 (frames,): number of the shot of each frame, from 0."""
        return np.searchsorted(self.cuts, np.arange(self.source.frame_count), side="right")

    def __repr__(self) -> str:
        return f"FaceTrack({int(self.present.sum())} of {self.source.frame_count} frames, {self.source.name})"


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """Settings for building the face track of an identity.

    max_gap_frames: longest gap, in frames, to fill by interpolation. Frames in longer gaps have no face.
    max_yaw_degrees: above 0, at most 90. Frames where the head turns further count as frames without the face.
    smoothing: "zero-lag" (Savitzky-Golay), or "official" for LatentSync's causal filter.
    """

    max_gap_frames: int = 8
    max_yaw_degrees: float = 60.0
    smoothing: Smoothing = "zero-lag"

    def __post_init__(self) -> None:
        if self.max_gap_frames < 0:
            raise UsageError(f'"max_gap" cannot be {self.max_gap_frames}. Choose 0 frames or more.')
        if not 0 < self.max_yaw_degrees <= 90:
            raise UsageError(f'"max_yaw" cannot be {self.max_yaw_degrees}. Choose a value above 0, up to 90 degrees.')
        check_choice("smoothing", self.smoothing, get_args(Smoothing))


def build_face_track(identities: Identities, identity: Identity, settings: TrackSettings | None = None) -> FaceTrack:
    """Build the track of one identity. In each shot, fill short gaps and then smooth the points.

    Raises:
        FaceError: the head turns beyond the limit in every frame.
    """
    settings = settings or TrackSettings()
    source = identities.source
    frontal = within_yaw_limit(identity, settings)
    if not frontal.any():
        raise FaceError(
            f"{source.name} shows the selected face in {len(frontal)} frames, but the head turns by more than "
            f"{settings.max_yaw_degrees:g} degrees in all these frames. Raise max_yaw, or select another face."
        )
    points = np.full((source.frame_count, 5, 2), np.nan)  # three points, and two corners of the box
    points[identity.frames[frontal]] = np.concatenate([identity.points, identity.boxes.reshape(-1, 2, 2)], 1)[frontal]
    mouth_openings = np.full(source.frame_count, np.nan)
    mouth_openings[identity.frames] = identity.mouth_openings
    for start, stop in pairwise([0, *identities.cuts, source.frame_count]):
        shot = points[start:stop]
        for gap in runs(~has_points(shot)):
            if gap.start > 0 and gap.stop < len(shot) and len(gap) <= settings.max_gap_frames:
                weight = (np.arange(1, len(gap) + 1) / (len(gap) + 1))[:, None, None]
                shot[gap.start : gap.stop] = (1 - weight) * shot[gap.start - 1] + weight * shot[gap.stop]
        if settings.smoothing == "zero-lag":
            for run in runs(has_points(shot)):
                shot[run.start : run.stop] = smooth(shot[run.start : run.stop])
    corners = points[:, 3:].reshape(-1, 4)
    return FaceTrack(
        source, points[:, :3], identities.cuts, settings.smoothing, asdict(settings), corners, mouth_openings
    )


def within_yaw_limit(identity: Identity, settings: TrackSettings) -> np.ndarray:
    """bool (n,): for each frame of the identity, whether the yaw of the head is within the limit."""
    return np.abs(identity.yaws) <= settings.max_yaw_degrees


def smooth(points: np.ndarray) -> np.ndarray:
    """Smooth points (n, ...) of consecutive frames with a Savitzky-Golay filter, without lag. The shape stays the same.

    At both ends, the filter uses the polynomial of the first or last window. Up to four frames stay unchanged.
    """
    from scipy.signal import savgol_filter

    count = len(points)
    window = min(SMOOTHING_WINDOW_FRAMES, count - 1 + count % 2)  # odd
    if window <= SMOOTHING_DEGREE + 1:
        return points
    return np.asarray(savgol_filter(points, window, SMOOTHING_DEGREE, axis=0, mode="interp"))


def runs(flags: np.ndarray) -> Iterator[range]:
    """Half-open ranges in which `flags`, bool (n,), are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2).tolist():
        yield range(start, stop)


def has_points(points: np.ndarray) -> np.ndarray:
    """bool (n,): whether each frame of points (n, k, 2) has the face."""
    return np.isfinite(points.sum(axis=(1, 2)))
