"""The new mouths of one or more speakers laid back into their source, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import MediaError, UsageError
from ..faces import alignment
from ..faces.alignment import keep_mask
from ..models.constants import LATENT_SCALE
from ..prefetch import prefetch
from ..sampling.lip_track import LipTrack
from ..video.timeline import Timeline
from . import box_blend, color_match
from .mouth_blend import MouthBlender
from .settings import BlendSettings

DECODE_FRAMES = 4  # latents decoded together


class Composite(NamedTuple):
    """One output frame (H, W, 3) and the source frame that it was made from."""

    frame: np.ndarray
    source: np.ndarray


def composite(
    speakers: Sequence[LipTrack], settings: BlendSettings, protect: np.ndarray | None = None
) -> Iterator[Composite]:
    """Put the regenerated mouths back into the source.

    Args:
        speakers: one or more, on the same source.
        settings: how their mouths are laid in.
        protect: float (1 or source frames, H, W), 1 where the source's pixels stay: a hand, a microphone.

    Yields:
        the output frames in order; where no mouth was regenerated, the source's own frame. Next to such frames the
        mouth fades in and out.

    Raises:
        UsageError: the speakers are not on the same source, or the mask does not fit it.
        MediaError: a face is not made of numbers.
    """
    timeline = shared_timeline(speakers)
    source = speakers[0].face_track.source
    guard = _ProtectMask(protect, source.frame_count, (source.height, source.width))
    mouths = [_Speaker(lips, settings) for lips in speakers]
    with closing(prefetch(source.read(timeline.source_index))) as sources:
        for first in range(0, timeline.frame_count, DECODE_FRAMES):
            frames = dict(enumerate(islice(sources, DECODE_FRAMES), start=first))
            faces = [mouth.faces(frames) for mouth in mouths]
            for i, frame in frames.items():
                spoken = [(mouth, shown[i]) for mouth, shown in zip(mouths, faces, strict=True) if i in shown]
                level = guard.level(timeline.source_index[i]) if spoken else 0.0
                yield Composite(_paste_all(frame, spoken, i, level), frame)


def shared_timeline(speakers: Sequence[LipTrack]) -> Timeline:
    """The timeline of several speakers: the longest of theirs, of which the others are the beginning.

    Raises:
        UsageError: there is none, or they are not on the same source at the same rate.
    """
    if not speakers:
        raise UsageError("there are no lips to lay in: wire those of at least one speaker")
    longest = max((lips.timeline for lips in speakers), key=lambda timeline: timeline.frame_count)
    first = speakers[0].face_track.source
    for lips in speakers:
        source, own = lips.face_track.source, lips.timeline
        if source.identity != first.identity:
            raise UsageError(f"speakers must be of one source, but {source!r} is not {first!r}: wire both to one video")
        if own.rate != longest.rate or own.source_index != longest.source_index[: own.frame_count]:
            raise UsageError(
                f"speakers must be sampled with one rate and length: {own!r} is not the beginning of {longest!r}"
            )
    return longest


def _paste_all(
    frame: np.ndarray, spoken: Sequence[tuple[_Speaker, torch.Tensor]], i: int, level: float | np.ndarray
) -> np.ndarray:
    for mouth, face in spoken:
        frame = mouth.paste(frame, face, i, level)
    return frame


def decode_crops(lips: LipTrack) -> Iterator[np.ndarray]:
    """The new faces alone, upright and in true proportions, one for each regenerated frame.

    Yields:
        float32 (height, width, 3) in [0, 1], of `align.crop_size(lips.resolution)`.
    """
    for first in range(0, len(lips.latents), DECODE_FRAMES):
        for face in lips.vae.decode(lips.latents[first : first + DECODE_FRAMES].float() / LATENT_SCALE):
            yield (box_blend.to_crop_aspect(face) / 2 + 0.5).clip(0, 1)


class _ProtectMask:
    """What of each frame may change."""

    def __init__(self, protect: np.ndarray | None, frame_count: int, size: tuple[int, int]) -> None:
        if protect is not None and protect.shape not in ((1, *size), (frame_count, *size)):
            raise UsageError(
                f"the protecting mask must be of 1 or {frame_count} pictures of {size[1]} x {size[0]}, as the source: "
                f"({frame_count}, {size[0]}, {size[1]}), not {protect.shape}"
            )
        if protect is not None and not all(np.isfinite(each).all() for each in protect):
            raise UsageError("the protecting mask has values that are not numbers; look at the node it is from")
        self._protect = protect

    def level(self, source_frame: int) -> float | np.ndarray:
        """How much of a new mouth may show, 0 to 1: one number, or float32 (H, W)."""
        if self._protect is None:
            return 1.0
        return 1 - self._protect[min(source_frame, len(self._protect) - 1)].astype(np.float32).clip(0, 1)


class _Speaker:
    """One speaker's faces: decoded, in the footage's colors, laid into a frame."""

    def __init__(self, lips: LipTrack, settings: BlendSettings) -> None:
        self._lips = lips
        self._settings = settings
        self._matrices = alignment.track_matrices(lips.face_track, lips.resolution)[list(lips.timeline.source_index)]
        self._opacity = lip_opacity(lips)
        self._paste = MouthBlender(lips.resolution, settings.edge)
        self._keep = keep_mask(lips.resolution)
        self._ring = color_match.Ring(lips.resolution)
        self._goes_on = _is_continuous(lips)
        self._last: tuple[int, color_match.ColorCorrection] | None = None

    def faces(self, frames: dict[int, np.ndarray]) -> dict[int, torch.Tensor]:
        """Output frames with a mouth -> their faces, (3, h, w) in [-1, 1]."""
        slots = self._lips.latent_index
        shown = {i: frame for i, frame in frames.items() if i < len(slots) and slots[i] >= 0}
        if not shown:
            return {}
        faces = self._decoded(slots[list(shown)])
        for i, face in zip(shown, faces, strict=True):
            if not bool(face.isfinite().all()):
                raise MediaError(
                    f"the new face of output frame {i} has values that are not numbers: the VAE is damaged or too "
                    "coarse for this device, or the node that its crop went through"
                )
        if self._settings.color_match:
            faces = [self._matched(i, face, frame) for face, (i, frame) in zip(faces, shown.items(), strict=True)]
        if self._settings.mode == "box":
            crops = [alignment.crop(frame, self._matrices[i], self._lips.resolution) for i, frame in shown.items()]
            faces = list(box_blend.apply_inpaint_mask(torch.stack(faces), np.stack(crops), self._keep))
        return dict(zip(shown, faces, strict=True))

    def paste(self, frame: np.ndarray, face: torch.Tensor, i: int, level: float | np.ndarray) -> np.ndarray:
        """Lay the face of output frame `i` into it, as far as `level` and its own strength let it show."""
        level = level * float(self._opacity[i])
        if self._settings.mode == "mouth":
            return self._paste.paste(frame, face, self._matrices[i], level)
        return box_blend.alpha_blend(frame, box_blend.paste_box(frame, face, self._matrices[i]), level)

    def _decoded(self, slots: np.ndarray) -> list[torch.Tensor]:
        lips = self._lips
        if lips.crops is None:
            return list(lips.vae.decode(lips.latents[slots].float() / LATENT_SCALE))
        faces = lips.crops[slots].movedim(-1, 1).float() * 2 - 1
        if self._settings.mode == "box":
            faces = F.interpolate(faces, (lips.resolution, lips.resolution), mode="bicubic", antialias=True)
        return list(faces)

    def _matched(self, i: int, face: torch.Tensor, frame: np.ndarray) -> torch.Tensor:
        """The face in the footage's colors; the correction begins anew after frames without a mouth, and at cuts."""
        steady = self._last is not None and self._last[0] == i - 1 and self._goes_on[i]
        before = self._last[1] if self._last is not None and steady else None
        correction = self._ring.match(face, frame, self._matrices[i]).after(before)
        self._last = (i, correction)
        return correction.apply(face)


def _is_continuous(lips: LipTrack) -> np.ndarray:
    """bool (output frames,): whether a frame shows what follows, or came before, the one before it, in one shot."""
    shown = np.array(lips.timeline.source_index)
    shots = lips.face_track.shots[shown]
    return np.concatenate([[False], (np.abs(np.diff(shown)) <= 1) & (np.diff(shots) == 0)])


FADE_FRAMES = 3


def lip_opacity(lips: LipTrack) -> np.ndarray:
    """float32 (output frames,) in [0, 1]: opacity of the new lips, lower next to frames that stay unchanged."""
    return opacities(lips.latent_index >= 0, lips.face_track.shots[list(lips.timeline.source_index)])


def opacities(active: Sequence[bool] | np.ndarray, shots: Sequence[int] | np.ndarray) -> np.ndarray:
    """Strength of the lips in each output frame, 0 to 1.

    Lips that begin or end with the clip or with a shot do so at once: nothing is there to fade from.

    Args:
        active: whether the frame has new lips.
        shots: number of the shot that the frame shows; a change is a cut.

    Returns:
        float32 (frames,): 0 where not active, rising to 1 over FADE_FRAMES inside the run.
    """
    present = np.asarray(active, bool)
    level = np.where(present, 1.0, 0.0).astype(np.float32)
    for i in range(1, len(present)):
        if present[i] != present[i - 1] and shots[i] == shots[i - 1]:
            _ramp(level, i, 1 if present[i] else -1)
    return level


def _ramp(level: np.ndarray, edge: int, step: int) -> None:
    """Lower the active frames next to an edge, going away from it."""
    place = edge if step > 0 else edge - 1
    for done in range(1, FADE_FRAMES + 1):
        if not 0 <= place < len(level) or level[place] == 0:
            return
        level[place] = min(level[place], done / (FADE_FRAMES + 1))
        place += step
