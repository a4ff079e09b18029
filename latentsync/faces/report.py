"""A report on the faces of a clip: as text, as JSON and as numbered crops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .alignment import affine_matrices, crop, track_matrices
from .face_track import runs, within_yaw_limit
from .occlusion import MASK_RESOLUTION
from .warp import opencv, square_pixels

if TYPE_CHECKING:
    from .face_track import FaceTrack, TrackSettings
    from .identities import Identities, Identity

MAX_RANGES = 8  # frame ranges in one line of text
CHOSEN_RGB = (0, 230, 90)  # color of the border around the selected face
TINT_RGB, TINT_OPACITY = (255, 0, 200), 0.6  # tint of objects in front of the face


class Selection(NamedTuple):
    """The selected identity, its track, and the settings of the track.

    identities: all people, numbered in the order of the selection.
    """

    identities: Identities
    identity: Identity
    track: FaceTrack
    settings: TrackSettings


def report_text(identities: Identities, selection: Selection | None = None) -> str:
    """A text of a few lines: the clip, each identity, and the filled and unchanged frames of the selected identity."""
    source, members = identities.source, identities.members
    lines = [f"{source.name}: {source.frame_count} frames, {len(identities.cuts) + 1} shot(s), {len(members)} face(s)"]
    for identity in members:
        mark = " (chosen)" if selection is not None and identity.number == selection.identity.number else ""
        x, y = identity.center_px
        lines.append(
            f"  {identity.number}{mark}: {len(identity.frames)} of {source.frame_count} frames "
            f"({_range_list(_frame_ranges(identity))}), {np.median(identity.sides_px):.0f} px at {x:.0f}, {y:.0f}, "
            f"yaw {identity.yaws.min():.0f} to {identity.yaws.max():.0f}, score {np.median(identity.scores):.2f}"
        )
    if selection is not None:
        lines.append(f"  face in {int(selection.track.present.sum())} of {source.frame_count} frames")
        lines += [f"  {name}: {_range_list(ranges)}" for name, ranges in _gaps(selection).items() if ranges]
        if (masks := selection.track.occlusion) is not None:
            lines.append(f"  object in front of the mouth: {_range_list(_ranges(masks.is_covered)) or 'none'}")
    return "\n".join(lines)


def report_json(identities: Identities, selection: Selection | None = None) -> dict[str, Any]:
    """The report of `report_text` as values for JSON. Frame ranges are half-open."""
    source = identities.source
    report: dict[str, Any] = {
        "source": source.name,
        "frames": source.frame_count,
        "size": [source.width, source.height],
        "cuts": list(identities.cuts),
        "faces": [
            {
                "number": identity.number,
                "frames": len(identity.frames),
                "ranges": _frame_ranges(identity),
                "side_px": round(float(np.median(identity.sides_px)), 1),
                "center_px": [round(float(value), 1) for value in identity.center_px],
                "yaw_degrees": [round(float(identity.yaws.min()), 1), round(float(identity.yaws.max()), 1)],
                "score": round(float(np.median(identity.scores)), 3),
            }
            for identity in identities.members
        ],
    }
    if selection is not None:
        report["chosen"] = selection.identity.number
        report["track"] = {"frames": int(selection.track.present.sum()), **_gaps(selection)}
        if (masks := selection.track.occlusion) is not None:
            report["track"]["occluded"] = _ranges(masks.is_covered)
    return report


def preview_crops(identities: Identities, side_px: int, selection: Selection | None) -> Iterator[np.ndarray]:
    """Crops of all people, then the `occlusion_crop` of the selected person if an object covers the mouth.

    uint8 (side, side, 3) each, see `identity_crops`.
    """
    yield from identity_crops(identities, side_px, None if selection is None else selection.identity)
    occluded = None if selection is None else occlusion_crop(selection.track, side_px)
    if occluded is not None:
        yield occluded


def identity_crops(identities: Identities, side_px: int, chosen: Identity | None = None) -> Iterator[np.ndarray]:
    """One crop of each identity with its number, in the order of the numbers: uint8 (side, side, 3).

    The crops have the same alignment as the crops for the model.

    Args:
        chosen: the identity whose crop gets a green border.
    """
    members = identities.members
    best = [best_frame(identity) for identity in members]
    in_time = sorted(range(len(members)), key=best.__getitem__)  # reads the video forwards
    crops: dict[int, np.ndarray] = {}
    for i, frame in zip(in_time, identities.source.read(best[i] for i in in_time), strict=True):
        identity = members[i]
        matrix = affine_matrices(identity.points[identity.frames == best[i]], side_px, (), "zero-lag")[0]
        crops[i] = np.ascontiguousarray(
            crop(square_pixels(frame, identities.source), matrix, side_px).transpose(1, 2, 0)
        )
        if chosen is not None and identity.number == chosen.number:
            _draw_border(crops[i])
        _draw_number(crops[i], identity.number)
    yield from (crops[i] for i in range(len(members)))


def occlusion_crop(track: FaceTrack, side_px: int) -> np.ndarray | None:
    """The crop of the frame where objects cover most of the mouth, with tinted objects: uint8 (side, side, 3).

    None if there is no object.
    """
    masks = track.occlusion
    if masks is None or not masks.is_covered.any():
        return None
    frame_index = int(np.argmax(masks.coverage))
    frame, mask = next(iter(track.source.read([frame_index]))), masks[frame_index]
    pixels = crop(frame, track_matrices(track, MASK_RESOLUTION)[frame_index], MASK_RESOLUTION).transpose(1, 2, 0)
    opacity = TINT_OPACITY * opencv().resize(mask, (MASK_RESOLUTION, MASK_RESOLUTION))[..., None]
    tinted = pixels + opacity * (np.array(TINT_RGB) - pixels)
    return opencv().resize(np.rint(tinted).astype(np.uint8), (side_px, side_px), interpolation=opencv().INTER_AREA)


def best_frame(identity: Identity) -> int:
    """The number of the frame where the face is large, looks into the camera and has a high score."""
    quality = identity.sides_px * np.cos(np.radians(identity.yaws)) * identity.scores
    return int(identity.frames[int(np.argmax(quality))])


def contact_sheet(crops: list[np.ndarray]) -> bytes:
    """Crops side by side, as a PNG file."""
    cv2 = opencv()
    return cv2.imencode(".png", np.ascontiguousarray(np.hstack(crops)[..., ::-1]))[1].tobytes()


def _gaps(selection: Selection) -> dict[str, list[list[int]]]:
    """Ranges of frames without the face, or with too large a turn of the head: filled gaps, and unchanged frames."""
    _, identity, track, settings = selection
    detected = np.zeros(track.source.frame_count, bool)
    detected[identity.frames[within_yaw_limit(identity, settings)]] = True
    return {"filled": _ranges(track.present & ~detected), "unchanged": _ranges(~track.present)}


def _frame_ranges(identity: Identity) -> list[list[int]]:
    shown = np.zeros(int(identity.frames[-1]) + 1, bool)
    shown[identity.frames] = True
    return _ranges(shown)


def _ranges(flags: np.ndarray) -> list[list[int]]:
    return [[run.start, run.stop] for run in runs(flags)]


def _range_list(ranges: list[list[int]]) -> str:
    """A text with the first and last frame of the first few ranges."""
    texts = [f"{start}-{stop - 1}" if stop - start > 1 else f"{start}" for start, stop in ranges[:MAX_RANGES]]
    return ", ".join(texts) + (f" and {len(ranges) - MAX_RANGES} more" if len(ranges) > MAX_RANGES else "")


def _draw_border(image: np.ndarray) -> None:
    width = image.shape[0] // 24
    inside = image[width:-width, width:-width].copy()
    image[:] = CHOSEN_RGB
    image[width:-width, width:-width] = inside


def _draw_number(image: np.ndarray, number: int) -> None:
    cv2 = opencv()
    scale = image.shape[0] / 160
    place = (round(6 * scale), round(24 * scale))
    for color, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        cv2.putText(image, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, color, round(thickness * scale))
