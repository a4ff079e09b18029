"""Whether lips follow a sound: the miniature model speaks, MediaPipe measures its mouth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from latentsync import ImageBatch, LipSyncPipeline, VideoFile, Waveform, detect_faces, select_face
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.identities import Identities
from latentsync.sampling import sampler
from latentsync.weights.locate import folders_in
from scripts.sample_clip import FRAME_RATE, camera_path, face_landmarks, speech, write_video
from scripts.sample_clip import SAMPLE_RATE as VOICE_RATE

UPPER_LIP, LOWER_LIP = 13, 14  # the middle of the inner lips in MediaPipe's mesh
EYE_CORNERS = 33, 263  # their distance is the unit of the opening
LEVEL_SECONDS = 0.12
RANGE_DB = 40.0  # quieter sound is silence
MAX_LAG = 8
QUICK = {"num_inference_steps": 5}


class Sync(NamedTuple):
    """How lips follow a sound.

    correlation: of the opening with the sound's level, at no lag.
    lag: frames by which the lips are late, where the correlation is highest.
    """

    correlation: float
    lag: int


class MouthMeter(AbstractContextManager["MouthMeter"]):
    """MediaPipe's face mesh of one face."""

    def __init__(self, model: Path) -> None:
        import mediapipe as mp

        vision = mp.tasks.vision
        base = mp.tasks.BaseOptions(model_asset_buffer=model.read_bytes())
        self._landmarker = vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(base_options=base))

    def __exit__(self, *error: object) -> None:
        self._landmarker.close()

    def opening(self, frame: np.ndarray) -> float:
        """The distance of the inner lips of a frame's one face, in distances of the eyes."""
        import mediapipe as mp

        pixels = frame if frame.dtype == np.uint8 else np.rint(255 * frame).astype(np.uint8)
        found = self._landmarker.detect(mp.Image(mp.ImageFormat.SRGB, np.ascontiguousarray(pixels))).face_landmarks
        size = np.array([frame.shape[1], frame.shape[0]])
        mesh = np.array([[point.x, point.y] for point in found[0]]) * size
        eyes = np.linalg.norm(mesh[EYE_CORNERS[0]] - mesh[EYE_CORNERS[1]])
        return float(np.linalg.norm(mesh[UPPER_LIP] - mesh[LOWER_LIP]) / eyes)

    def openings(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        return np.array([self.opening(frame) for frame in frames])


def level(sound: np.ndarray, sample_rate: int, count: int, rate: Fraction) -> np.ndarray:
    """The level of a sound (samples,) at each frame's instant, in dB over silence: (count,), 0 to RANGE_DB."""
    size = round(LEVEL_SECONDS * sample_rate)
    window = np.hanning(size)
    padded = np.pad(sound, (size, size + sample_rate * 60))
    starts = [round(float(frame / rate) * sample_rate) + size // 2 for frame in range(count)]
    power = np.array([np.mean((padded[start : start + size] * window) ** 2) for start in starts])
    decibels = 10 * np.log10(power + 1e-12)
    return (decibels - decibels.max() + RANGE_DB).clip(0)


def sync(opening: np.ndarray, levels: np.ndarray) -> Sync:
    """Compare the opening of each frame with the sound's level."""

    def correlation(lag: int) -> float:
        late, early = (
            opening[max(lag, 0) : len(opening) + min(lag, 0)],
            levels[max(-lag, 0) : len(levels) - max(lag, 0)],
        )
        return float(np.corrcoef(late, early)[0, 1])

    return Sync(correlation(0), max(range(-MAX_LAG, MAX_LAG + 1), key=correlation))


def voice(seconds: float, *, lead: float = 0.0) -> Waveform:
    """The demo's voice after `lead` seconds of silence."""
    sound = np.concatenate([np.zeros(round(lead * VOICE_RATE)), speech(seconds)])
    return Waveform(torch.from_numpy(sound).float()[None], VOICE_RATE)


def mono(sound: Waveform) -> np.ndarray:
    return sound.samples.mean(dim=0).numpy()


def astronaut(folder: Path, frames: int = 50, rate: Fraction = Fraction(FRAME_RATE)) -> FaceTrack:
    """The face of the demo's clip, at any frame rate."""
    path, cameras = folder / f"astronaut_{float(rate):.3f}.mp4", camera_path(frames)
    write_video(path, cameras, rate)
    people = detect_faces(VideoFile(path), folders_in(folder), landmarks=face_landmarks(cameras))
    return select_face(people).track


def side_by_side(track: FaceTrack, folder: Path) -> Identities:
    """Two copies of a face track's video beside each other, and their two people."""
    frames = [np.hstack([frame, frame]) for frame in track.source.read(range(track.source.frame_count))]
    source = ImageBatch(torch.from_numpy(np.stack(frames)).float() / 255, Fraction(FRAME_RATE))
    landmarks = face_landmarks(camera_path(len(frames)))
    faces = [[entry, moved_right(entry, track.source.width)] for (entry,) in landmarks["frames"]]
    return detect_faces(
        source, folders_in(folder), landmarks={"image_size": [source.height, source.width], "frames": faces}
    )


def moved_right(entry: dict[str, Any], pixels: int) -> dict[str, Any]:
    """An entry of FACE_LANDMARKS for the same face, that many pixels further right."""
    left, top, right, bottom = entry["bbox_xyxy"]
    points = [[x + pixels, y] for x, y in entry["landmarks_xy"]]
    return {**entry, "bbox_xyxy": [left + pixels, top, right + pixels, bottom], "landmarks_xy": points}


def talk(
    pipeline: LipSyncPipeline, track: FaceTrack, sound: Waveform, **settings: Any
) -> tuple[list[np.ndarray], Fraction]:
    """The frames of the astronaut speaking, and their rate."""
    result = pipeline(track.source, sound, face=track, **(QUICK | settings))
    return list(result.frames()), result.fps


@contextmanager
def shifted_windows(frames: int) -> Iterator[None]:
    """A planted fault: the network hears what belongs to a frame some frames later."""
    original = sampler.frame_windows

    def late(hidden_states: torch.Tensor, window: Sequence[int], *more: Any) -> torch.Tensor:
        return original(hidden_states, [max(frame + frames, 0) for frame in window], *more)

    sampler.frame_windows = late
    try:
        yield
    finally:
        sampler.frame_windows = original
