"""Composite the new faces of one or more speakers into the original frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from ..errors import MediaError, UsageError
from ..faces.alignment import track_matrices
from ..faces.face_track import FaceTrack
from ..faces.occlusion import MASK_RESOLUTION, visible_face
from ..models.constants import LATENT_SCALE
from ..models.protocols import BatchDecoder
from ..prefetch import prefetch
from ..sampling.lip_track import LipTrack
from ..video.frame_source import FrameSource
from ..video.timeline import Timeline
from .box_blend import to_crop_aspect
from .color_match import ColorCorrection, ColorMatcher
from .settings import BLENDERS, BlendSettings
from .texture_match import Texture, TextureMatcher

T = TypeVar("T")
log = logging.getLogger(__name__)

GROUP_FRAMES = 4  # original frames that are held at once
DECODE_FRAMES = 16  # latents that the VAE decodes in one call, then kept on the CPU: on a GPU each call waits
FADE_FRAMES = 3  # frames with reduced opacity beside unchanged frames
NEAR_SECONDS = 0.1  # of the original video: a stretched video, or one of 60 fps, skips frames without a jump


class Composite(NamedTuple):
    """One output frame (H, W, 3) and its original frame. Without new lips, both are the same object."""

    frame: np.ndarray
    source: np.ndarray


def composite(
    speakers: Sequence[LipTrack], settings: BlendSettings, protect: np.ndarray | None = None
) -> Iterator[Composite]:
    """Paste the new faces into the original frames.

    Args:
        speakers: lip tracks of one or more people in the same video.
        settings: settings for pasting the faces.
        protect: float (1 or source frames, H, W), 1 where the original pixels stay, for example at a hand.

    Yields:
        The output frames in order. Frames without new lips stay unchanged. Next to such frames, the new lips fade
        in or out.

    Raises:
        UsageError: the speakers do not belong to the same video, or the mask does not fit it.
        MediaError: a face contains NaN or Inf.
    """
    timeline = shared_timeline(speakers)
    source = speakers[0].face_track.source
    protect_mask = ProtectMask(protect, source)
    pasters = [_FacePaster(lips, settings) for lips in speakers]
    with closing(prefetch(source.read(timeline.source_index))) as originals:
        for start in range(0, timeline.frame_count, GROUP_FRAMES):
            frames = dict(enumerate(islice(originals, GROUP_FRAMES), start=start))
            prepared = [paster.prepare(frames) for paster in pasters]
            for i, original in frames.items():
                frame = original
                for paster, face in [(p, faces[i]) for p, faces in zip(pasters, prepared, strict=True) if i in faces]:
                    frame = paster.paste(frame, face, i, protect_mask.opacity(timeline.source_index[i]))
                yield Composite(frame, original)


def shared_timeline(speakers: Sequence[LipTrack]) -> Timeline:
    """The longest timeline of several speakers. The other timelines must equal the beginning of this timeline.

    Raises:
        UsageError: there is no speaker, or the speakers differ in video, frame rate or length mode.
    """
    if not speakers:
        raise UsageError('"lips" is empty. Connect the lips of at least one speaker.')
    longest = max((lips.timeline for lips in speakers), key=lambda timeline: timeline.frame_count)
    first = speakers[0].face_track.source
    for number, lips in enumerate(speakers, start=1):
        source, timeline = lips.face_track.source, lips.timeline
        if source.identity != first.identity:
            raise UsageError(
                f"All speakers need the same video. Speaker 1: {first.name}. Speaker {number}: {source.name}. "
                "Use one video for all speakers."
            )
        if timeline.rate != longest.rate or timeline.source_index != longest.source_index[: timeline.frame_count]:
            timelines = (
                f"Speaker {n}: {float(s.timeline.rate):g} fps, {s.timeline.frame_count} frames."
                for n, s in enumerate(speakers, start=1)
            )
            raise UsageError(
                f"All speakers need the same output_fps and length_mode. {' '.join(timelines)} "
                "Set both inputs to the same values in each Sampler."
            )
    return longest


def decode_crops(lips: LipTrack) -> Iterator[np.ndarray]:
    """Decode the new face of each frame with new lips. This function does not decode the original frames.

    Each face is upright and has its true aspect ratio.

    Yields:
        float32 (height, width, 3) in [0, 1], of `crop_size(lips.resolution)`.
    """
    for face in _decode_faces(lips, np.arange(len(lips.latents))):
        yield upright_crop(face)


def upright_crop(face: torch.Tensor) -> np.ndarray:
    """A face (3, R, R) in [-1, 1] in its true aspect ratio: float32 (height, width, 3) in [0, 1], of `crop_size(R)`."""
    return (to_crop_aspect(face) / 2 + 0.5).clip(0, 1)


def _decode_faces(lips: LipTrack, latent_index: np.ndarray) -> Iterator[torch.Tensor]:
    """The new faces of some latents: (3, R, R) in [-1, 1], on the CPU.

    A GPU decodes the next faces while the caller pastes these faces, because the VAE's call returns early.
    """
    starts = range(0, len(latent_index), DECODE_FRAMES)
    batches = (lips.latents[latent_index[start : start + DECODE_FRAMES]].float() / LATENT_SCALE for start in starts)
    vae = lips.vae
    decoded = iter(vae.decode_batches(batches) if isinstance(vae, BatchDecoder) else map(vae.decode, batches))
    pending = next(decoded, None)
    while pending is not None:
        faces = pending.cpu()  # waits
        pending = next(decoded, None)
        yield from faces


def lip_opacity(lips: LipTrack) -> np.ndarray:
    """Opacity of the new lips in each output frame: float32 (output frames,) in [0, 1].

    Next to frames without new lips, the opacity rises in equal steps over FADE_FRAMES frames. Lips do not fade at the
    two ends of the clip, and do not fade at a shot boundary.
    """
    active = lips.latent_index >= 0
    shots = lips.face_track.shots[list(lips.timeline.source_index)]
    opacity = active.astype(np.float32)
    forward = range(1, len(active))
    for i, neighbor in [(i, i - 1) for i in forward] + [(i - 1, i) for i in reversed(forward)]:
        if active[i] and (active[neighbor] or shots[i] == shots[neighbor]):
            opacity[i] = min(opacity[i], opacity[neighbor] + 1 / (FADE_FRAMES + 1))
    return opacity


def is_continuous(lips: LipTrack) -> np.ndarray:
    """Whether each output frame and the previous output frame show the same shot, at most NEAR_SECONDS apart.

    bool (output frames,), False for the first.
    """
    source_index = np.array(lips.timeline.source_index)
    shots = lips.face_track.shots[source_index]
    near_frames = max(1, int(NEAR_SECONDS * lips.face_track.source.rate))
    return np.concatenate([[False], (np.abs(np.diff(source_index)) <= near_frames) & (np.diff(shots) == 0)])


class ProtectMask:
    """Pixels of the original video that must stay unchanged.

    Args:
        protect: float (1 or source frames, H, W), 1 where the original pixels stay. None protects nothing.
        source: the original video.

    Raises:
        UsageError: see `check_protect_mask`.
    """

    def __init__(self, protect: np.ndarray | None, source: FrameSource) -> None:
        if protect is not None:
            check_protect_mask(protect, source)
        self._protect = protect

    def opacity(self, source_frame: int) -> float | np.ndarray:
        """The largest opacity that a new face may have, in [0, 1]: one number, or float32 (H, W)."""
        if self._protect is None:
            return 1.0
        return 1 - self._protect[min(source_frame, len(self._protect) - 1)].astype(np.float32).clip(0, 1)


def check_protect_mask(protect: np.ndarray, source: FrameSource) -> None:
    """Raise UsageError if a mask has another size or number of frames than the video, or contains NaN or Inf."""
    if protect.ndim != 3:
        raise UsageError('"protect_mask" is not a batch of masks. Connect one mask, or one for each frame.')
    count, height, width = protect.shape
    if (height, width) != (source.height, source.width):
        raise UsageError(
            f'"protect_mask" is {width} x {height}, but the video is {source.width} x {source.height}. '
            f"Resize the mask. Use one mask, or one for each of the {source.frame_count} frames."
        )
    if count not in (1, source.frame_count):
        raise UsageError(
            f'"protect_mask" has {count} masks, but the video has {source.frame_count} frames. '
            "Use one mask, or one for each frame."
        )
    if not all(np.isfinite(mask).all() for mask in protect):
        raise UsageError('"protect_mask" contains NaN or infinite values. Check the node that made the mask.')


class _FacePaster:
    """Decodes, color-matches and pastes the faces of one speaker, and matches their texture."""

    def __init__(self, lips: LipTrack, settings: BlendSettings) -> None:
        self._lips = lips
        self._matrices = track_matrices(lips.face_track, lips.resolution)[list(lips.timeline.source_index)]
        self._visible = _visible_faces(lips.face_track)
        self._opacity = lip_opacity(lips)
        self._is_continuous = is_continuous(lips)
        self._blender = BLENDERS[settings.mode](lips.resolution, settings)
        self._color_matcher = ColorMatcher(lips.resolution) if settings.color_match else None
        self._last_correction: tuple[int, ColorCorrection] | None = None
        self._has_logged_hidden_skin = False  # the log has one line for each speaker, not for each frame
        seed = 0 if lips.provenance is None else lips.provenance.seed
        edge = settings.edge
        self._texture_matcher = (
            TextureMatcher(lips.resolution, edge.grow, edge.feather, seed) if settings.match_texture else None
        )
        self._last_texture: tuple[int, Texture] | None = None
        self._decoded_faces = _decode_faces(lips, lips.latent_index[lips.latent_index >= 0])

    def prepare(self, frames: dict[int, np.ndarray]) -> dict[int, torch.Tensor]:
        """Return the face to paste for each output frame with new lips: (3, h, w) in [-1, 1]."""
        latent_index = self._lips.latent_index
        frames = {i: frame for i, frame in frames.items() if i < len(latent_index) and latent_index[i] >= 0}
        if not frames:
            return {}
        indices = list(frames)
        faces = [self._match_color(i, face, frames[i]) for i, face in zip(indices, self._decode(indices), strict=True)]
        faces = self._blender.prepare(faces, list(frames.values()), self._matrices[indices])
        return dict(zip(indices, faces, strict=True))

    def paste(self, frame: np.ndarray, face: torch.Tensor, i: int, opacity: float | np.ndarray) -> np.ndarray:
        """Paste the face of output frame `i` into this frame, behind the objects in front of the original face.

        `opacity` is lower where the lips fade.
        """
        visible = self._visible(self._lips.timeline.source_index[i])
        if visible is not None:
            opacity = np.minimum(visible, opacity)
        opacity = opacity * float(self._opacity[i])
        matrix = self._matrices[i]
        pasted = self._blender.paste(frame, face, matrix, opacity)
        if self._texture_matcher is None:
            return pasted
        texture = self._texture_matcher.measure(frame, pasted, matrix, opacity)
        texture = texture.smoothed(self._previous(self._last_texture, i))
        self._last_texture = (i, texture)
        return self._texture_matcher.apply(pasted, texture, matrix, i, opacity)

    def _decode(self, indices: list[int]) -> list[torch.Tensor]:
        """The faces of the next output frames with new lips, from the latents or from the crops that replace them."""
        lips = self._lips
        if lips.crops is None:
            faces = list(islice(self._decoded_faces, len(indices)))
        else:
            faces = list(lips.crops[lips.latent_index[indices]].cpu().movedim(-1, 1).float() * 2 - 1)
        for i, face in zip(indices, faces, strict=True):
            if not bool(face.isfinite().all()):
                remedy = (
                    'Check the VAE file with "python -m latentsync doctor". If the file is correct, run the VAE in '
                    "fp32."
                    if lips.crops is None
                    else "Check the node that changed the crops."
                )
                raise MediaError(f"The new face of output frame {i} contains NaN or infinite values. {remedy}")
        return faces

    def _previous(self, last: tuple[int, T] | None, i: int) -> T | None:
        """The value of the frame before output frame `i`. None after a cut or a frame without new lips."""
        return last[1] if last is not None and last[0] == i - 1 and self._is_continuous[i] else None

    def _match_color(self, i: int, face: torch.Tensor, frame: np.ndarray) -> torch.Tensor:
        """Correct the face's colors. The smoothing restarts at cuts and after frames without new lips.

        If an object hides the skin around the mouth, the correction of the previous frame stays. Without a previous
        frame, the face keeps its colors.
        """
        if self._color_matcher is None:
            return face
        last = self._previous(self._last_correction, i)
        visible = self._visible(self._lips.timeline.source_index[i])
        correction = self._color_matcher.match_color(face, frame, self._matrices[i], visible)
        if correction is None:
            if not self._has_logged_hidden_skin:
                log.info("Output frame %d shows too little skin to match colors. The last correction stays.", i)
            self._has_logged_hidden_skin = True
            correction = last
        else:
            correction = correction.smoothed(last)
        if correction is None:
            return face
        self._last_correction = (i, correction)
        return correction.apply(face)


def _visible_faces(track: FaceTrack) -> Callable[[int], np.ndarray | None]:
    """A function for the pixels of an original frame without an object in front of the face, see `visible_face`."""
    masks = track.occlusion
    if masks is None:
        return lambda _: None
    matrices, size = track_matrices(track, MASK_RESOLUTION), (track.source.height, track.source.width)

    @lru_cache(GROUP_FRAMES)  # matching the color and pasting a group of frames need each mask
    def visible(source_frame: int) -> np.ndarray | None:
        return visible_face(masks, source_frame, matrices[source_frame], size)

    return visible
