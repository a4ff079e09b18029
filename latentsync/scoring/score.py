"""Score of a video: SyncNet's distance, confidence and offset, the mouth opening, LipLeak, and a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..audio.mono import MonoSound, mono_sound
from ..audio.waveform import Waveform
from ..errors import ScoreError, UsageError
from ..faces.alignment import track_matrices
from ..faces.warp import square_pixels
from ..models.stable_syncnet import StableSyncNet
from ..models.syncnet import VIDEO_FRAMES, SyncNet
from ..progress import ShowProgress, shown
from ..video.timeline import MODEL_RATE, build_timeline
from .lip_leak import LipLeak, lip_leak
from .mouth_sync import MouthSync, mouth_sync
from .stable_sync import CROP_PX, StableSyncScore, score_stable_sync
from .sync import FRAME_MS, TRUSTED_WINDOWS, SyncScore, num_windows, score_sync

if TYPE_CHECKING:
    from ..faces.face_track import FaceTrack

MIN_CONFIDENCE = 3.0  # LatentSync was trained on clips with at least this confidence
TYPICAL_CONFIDENCE = (6, 9)  # of real speech in front of a camera
IN_SYNC_FRAMES = 1  # the resolution is one frame of 40 ms
MAX_STRETCHES = 5  # weak parts in one sentence
HINT = (
    "Compare the score with the score of the original video, and with other takes. The score does not measure the "
    "image quality."
)


@dataclass(frozen=True, eq=False)
class Score:
    """Measurements of one person's lips in one video.

    name: name of the video.
    sync: SyncNet's result. None without its weights.
    lip_leak, mouth_sync: None without landmarks of the mouth. `mouth_sync` also needs a moving mouth, and sound.
    stable_sync: None without StableSyncNet.
    """

    name: str
    sync: SyncScore | None = None
    lip_leak: LipLeak | None = None
    mouth_sync: MouthSync | None = None
    stable_sync: StableSyncScore | None = None

    @property
    def confidence(self) -> float:
        """Sync-C of SyncNet, see `SyncScore`. NaN: not measured."""
        return np.nan if self.sync is None else self.sync.confidence

    @property
    def distance(self) -> float:
        """Sync-D of SyncNet. NaN: not measured."""
        return np.nan if self.sync is None else self.sync.distance

    @property
    def offset_frames(self) -> int:
        """How far the audio is ahead of the lips, in frames of 40 ms, from SyncNet or the mouth opening. 0: unknown."""
        if self.sync is not None:
            return self.sync.offset_frames
        return self.mouth_sync.offset_frames if self.mouth_sync is not None and self.mouth_sync.is_clear else 0

    @property
    def verdict(self) -> str:
        """A summary of the score in a few sentences."""
        return " ".join(self.sentences())

    def sentences(self) -> Iterator[str]:
        """The sentences of the verdict."""
        if self.sync is not None:
            yield from sync_sentences(self.sync)
        if self.stable_sync is not None:
            yield (
                f"StableSyncNet: cosine {self.stable_sync.cosine:.3f}, best {self.stable_sync.best_cosine:.3f} at an "
                f"offset of {self.stable_sync.offset_ms} ms."
            )
        if self.mouth_sync is not None:
            yield from mouth_sentences(self.mouth_sync, gives_advice=self.sync is None)
        if self.lip_leak is not None and self.lip_leak.share is None:
            yield "The sound has no silent part in which the mouth could be checked."
        elif self.lip_leak is not None:
            leak = self.lip_leak
            yield f"The mouth is open in {leak.share:.0%} of the {leak.silent_frames} frames with silence (LipLeak)."

    def to_json(self) -> dict[str, Any]:
        """The numbers for JSON, and the verdict."""
        sync, leak, mouth, stable = self.sync, self.lip_leak, self.mouth_sync, self.stable_sync
        return {
            "video": self.name,
            "sync": None
            if sync is None
            else {
                "confidence": round(sync.confidence, 4),
                "distance": round(sync.distance, 4),
                "offset_frames": sync.offset_frames,
                "offset_ms": sync.offset_ms,
                "windows": sync.window_count,
                "trusted": sync.is_trusted,
                "distance_by_offset": [round(value, 4) for value in sync.mean_distances.tolist()],
                "weak_seconds": sync.weak_seconds,
            },
            "lip_leak": None
            if leak is None
            else {
                "share": None if leak.share is None else round(leak.share, 4),
                "silent_frames": leak.silent_frames,
                "open_frames": leak.open_frames,
            },
            "mouth_sync": None
            if mouth is None
            else {
                "correlation": round(mouth.correlation, 4),
                "offset_ms": mouth.offset_ms,
                "clear": mouth.is_clear,
            },
            "stable_sync": None
            if stable is None
            else {
                "cosine": round(stable.cosine, 4),
                "best_cosine": round(stable.best_cosine, 4),
                "offset_ms": stable.offset_ms,
            },
            "verdict": self.verdict,
        }


def sync_sentences(sync: SyncScore) -> Iterator[str]:
    """The result of SyncNet in sentences."""
    low, high = TYPICAL_CONFIDENCE
    yield f"Sync confidence {sync.confidence:.2f}, distance {sync.distance:.2f}."
    if not sync.is_trusted:
        yield f"The clip is too short to trust. Use at least {TRUSTED_WINDOWS + VIDEO_FRAMES} frames (3 s)."
    if sync.confidence < MIN_CONFIDENCE:
        yield f"Lips and sound do not clearly belong together. Real speech is typically {low} to {high}."
    elif sync.confidence < low:
        yield f"The sync is weaker than in typical real speech ({low} to {high})."
    else:
        yield f"The confidence is in or above the range of typical real speech ({low} to {high})."
    if sync.confidence >= MIN_CONFIDENCE:
        yield offset_sentence(sync.offset_ms)
        if sync.weak_ranges:
            yield f"The sync is weaker, or the speech pauses, at {weak_stretches(sync)}."
    yield HINT


def mouth_sentences(mouth: MouthSync, *, gives_advice: bool) -> Iterator[str]:
    """The offset of the mouth opening in sentences, and how to correct the offset."""
    if not mouth.is_clear:
        yield "The opening of the mouth gives no clear offset. A longer part of the video may give a clear offset."
        return
    yield (
        f"The opening of the mouth fits the sound best at an offset of {mouth.offset_ms} ms (correlation "
        f"{mouth.correlation:.2f})."
    )
    if gives_advice:
        yield offset_sentence(mouth.offset_ms)


def weak_stretches(sync: SyncScore) -> str:
    """The first weak parts of the clip in seconds."""
    stretches = [f"{start:.1f}-{stop:.1f} s" for start, stop in sync.weak_seconds]
    more = f" and {len(stretches) - MAX_STRETCHES} more" if len(stretches) > MAX_STRETCHES else ""
    return ", ".join(stretches[:MAX_STRETCHES]) + more


def offset_sentence(offset_ms: int) -> str:
    """A sentence about the offset, with the change of `offset_ms` that corrects it."""
    if abs(offset_ms) <= FRAME_MS * IN_SYNC_FRAMES:
        return f"Lips and sound are in sync within a frame (offset {offset_ms} ms)."
    way = "leads" if offset_ms > 0 else "lags behind"
    move = f"Delay the sound by {offset_ms} ms" if offset_ms > 0 else f"Start the sound {-offset_ms} ms earlier"
    return f"The sound {way} the lips by {abs(offset_ms)} ms. {move}, or add {-offset_ms} to offset_ms and run again."


class ScoredFrames(NamedTuple):
    """The frames of a result, at 25 fps. The face has the same position as in the original video.

    source_index: number of the original frame of each frame.
    read: reads a number of frames from the start: (H, W, 3), RGB.
    has_lips: bool (n,): which frames have new lips. The score ignores other frames. None: all frames.
    """

    source_index: Sequence[int]
    read: Callable[[int], Iterator[np.ndarray]]
    has_lips: np.ndarray | None = None


def score_track(
    track: FaceTrack,
    waveform: Waveform | MonoSound,
    frames: ScoredFrames | None = None,
    *,
    syncnet: SyncNet | None = None,
    stable_syncnet: StableSyncNet | None = None,
    progress: ShowProgress | bool = False,
) -> Score:
    """Score one person of a video, or of a result.

    Args:
        track: face track from `select_face`.
        waveform: the audio, which starts with the first frame. `reader.read_mono` reads a long file in parts.
        frames: frames of a result, without a measurement of the mouth. None: the original frames.
        syncnet, stable_syncnet: the networks to measure with. Without a network, the function measures only the mouth.
        progress: see `progress.ShowProgress`.

    Raises:
        UsageError: the track has no boxes.
        AudioError: the audio is unusable.
        StorageError: the audio does not fit in the temporary folder.
        ScoreError: fewer than six frames have audio.
    """
    if track.boxes is None:
        raise UsageError("The face has no bounding boxes, but scoring needs them. Select the face with select_face.")
    source, samples, openings = track.source, mono_sound(waveform, "audio").samples, None
    if frames is None:
        shown_frames = build_timeline(source, waveform.duration_seconds, MODEL_RATE, "shortest").source_index
        frames, openings = ScoredFrames(shown_frames, lambda n: source.read(shown_frames[:n])), track.mouth_openings
    index = np.asarray(frames.source_index)
    count = num_windows(len(index), len(samples))
    if count < 1:
        raise ScoreError(
            f"{source.name} is too short to score. It has {len(index)} frames at 25 fps and "
            f"{float(waveform.duration_seconds):.2f} s of sound. Use at least {VIDEO_FRAMES + 1} frames with sound."
        )
    score, needed = Score(source.name), count + VIDEO_FRAMES - 1
    if openings is not None:
        openings = openings[index]
        score = replace(score, lip_leak=lip_leak(openings, samples), mouth_sync=mouth_sync(openings, samples))
    boxes = track.boxes[index]
    if frames.has_lips is not None:
        boxes = np.where(frames.has_lips[:, None], boxes, np.nan)
    if syncnet is not None:
        pictures = shown((square_pixels(frame, source) for frame in frames.read(needed)), "sync", needed, progress)
        score = replace(score, sync=score_sync(pictures, boxes, track.shots[index], samples, syncnet))
    if stable_syncnet is not None:
        pictures, matrices = shown(frames.read(needed), "stable sync", needed, progress), track_matrices(track, CROP_PX)
        stable_sync = score_stable_sync(pictures, matrices[index], track.shots[index], samples, stable_syncnet)
        score = replace(score, stable_sync=stable_sync)
    return score
