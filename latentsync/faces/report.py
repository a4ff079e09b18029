"""What was found, for people to read and for machines, and a numbered crop of everybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import alignment
from .face_track import runs, within_yaw_limit
from .warp import opencv

if TYPE_CHECKING:
    from .face_track import FaceTrack, TrackSettings
    from .identities import Identities, Identity


class Selection(NamedTuple):
    """Whose lips move, the track of their face, and how it was followed."""

    person: Identity
    track: FaceTrack
    settings: TrackSettings


def report_text(people: Identities, chosen: Selection | None = None) -> str:
    """A few lines: the clip, each person, and what of the chosen one's track is bridged and left alone."""
    source = people.source
    count = len(people.persons)
    lines = [f"{source.name}: {source.frame_count} frames, {len(people.cuts) + 1} shot(s), {count} face(s)"]
    mine = None if chosen is None else chosen.person
    lines += [_line(person, person is mine, source.frame_count) for person in people.persons]
    if chosen is not None:
        lines += _lips(chosen)
    return "\n".join(lines)


def report_json(people: Identities, chosen: Selection | None = None) -> dict[str, Any]:
    """The same as JSON-ready values; frame ranges are half-open."""
    source = people.source
    result: dict[str, Any] = {
        "source": source.name,
        "frames": source.frame_count,
        "size": [source.width, source.height],
        "cuts": list(people.cuts),
        "faces": [_entry(person) for person in people.persons],
    }
    if chosen is not None:
        result["chosen"] = chosen.person.number
        result["lips"] = {"frames": int(chosen.track.present.sum()), **_gaps(chosen)}
    return result


def identity_crops(people: Identities, side_px: int) -> Iterator[np.ndarray]:
    """Everybody's face where it is seen best, with its number: uint8 (side, side, 3) each, by number.

    The crops are those that the model would see.
    """
    best = {person.number: _best(person) for person in people.persons}
    wanted = sorted(set(best.values()))
    found: dict[int, np.ndarray] = {}
    for index, frame in zip(wanted, people.source.read(wanted), strict=True):
        for person in people.persons:
            if best[person.number] == index:
                found[person.number] = _numbered(_crop(person, index, frame, side_px), person.number)
    yield from (found[person.number] for person in people.persons)


def contact_sheet(pictures: list[np.ndarray]) -> bytes:
    """Crops side by side as a PNG file."""
    cv2 = opencv()
    return cv2.imencode(".png", np.ascontiguousarray(np.hstack(pictures)[..., ::-1]))[1].tobytes()


def _line(person: Identity, is_chosen: bool, frame_count: int) -> str:
    x, y = person.center_px
    return (
        f"  {person.number}{' (chosen)' if is_chosen else ''}: {len(person.frames)} of {frame_count} frames "
        f"({_ranges(_spans(person.frames))}), {np.median(person.sides_px):.0f} px at {x:.0f}, {y:.0f}, "
        f"yaw {person.yaws.min():.0f} to {person.yaws.max():.0f}, score {np.median(person.scores):.2f}"
    )


def _lips(chosen: Selection) -> list[str]:
    present, total = int(chosen.track.present.sum()), chosen.track.source.frame_count
    gaps = _gaps(chosen)
    lines = [f"  face in {present} of {total} frames"]
    lines += [f"  bridged: {_ranges(gaps['bridged'])}"] if gaps["bridged"] else []
    lines += [f"  left as they are: {_ranges(gaps['left'])}"] if gaps["left"] else []
    return lines


def _gaps(chosen: Selection) -> dict[str, list[list[int]]]:
    """Frames without the face, or with one that is turned too far: those that got lips all the same, and the rest."""
    person, track, settings = chosen
    seen = np.zeros(track.source.frame_count, bool)
    seen[person.frames[within_yaw_limit(person, settings)]] = True
    return {"bridged": _pairs(track.present & ~seen), "left": _pairs(~track.present)}


def _entry(person: Identity) -> dict[str, Any]:
    return {
        "number": person.number,
        "frames": len(person.frames),
        "spans": _spans(person.frames),
        "side_px": round(float(np.median(person.sides_px)), 1),
        "center_px": [round(float(value), 1) for value in person.center_px],
        "yaw_degrees": [round(float(person.yaws.min()), 1), round(float(person.yaws.max()), 1)],
        "score": round(float(np.median(person.scores)), 3),
    }


def _spans(frames: np.ndarray) -> list[list[int]]:
    """Half-open ranges of consecutive frames."""
    there = np.zeros(int(frames[-1]) + 1, bool)
    there[frames] = True
    return _pairs(there)


def _pairs(flags: np.ndarray) -> list[list[int]]:
    return [[run.start, run.stop] for run in runs(flags)]


def _ranges(spans: list[list[int]]) -> str:
    """First and last frame of each range, the first few of them."""
    shown = [f"{first}-{stop - 1}" if stop - first > 1 else f"{first}" for first, stop in spans[:8]]
    return ", ".join(shown) + (f" and {len(spans) - 8} more" if len(spans) > 8 else "")


def _best(person: Identity) -> int:
    """The frame with the largest face that looks into the camera and that the detector is sure of."""
    worth = person.sides_px * np.cos(np.radians(person.yaws)) * person.scores
    return int(person.frames[int(np.argmax(worth))])


def _crop(person: Identity, index: int, frame: np.ndarray, side_px: int) -> np.ndarray:
    """uint8 (side, side, 3) of a frame that shows the person."""
    at = int(np.flatnonzero(person.frames == index)[0])
    matrix = alignment.affine_matrices(person.points[at : at + 1], side_px, (), "zero-lag")[0]
    return np.ascontiguousarray(alignment.crop(frame, matrix, side_px).transpose(1, 2, 0))


def _numbered(crop: np.ndarray, number: int) -> np.ndarray:
    cv2 = opencv()
    scale = crop.shape[0] / 160
    place = (round(6 * scale), round(24 * scale))
    for color, thickness in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        cv2.putText(crop, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, color, round(thickness * scale))
    return crop
