"""The stages that need no network of LatentSync: find and select people and objects, and score a video."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .audio.levels import frame_levels
from .audio.mono import MonoSound, mono_sound
from .audio.reader import read_mono
from .audio.waveform import Waveform
from .errors import AudioError, UsageError
from .faces import precomputed
from .faces.clip_segmenter import Place
from .faces.detection import DEFAULT_MIN_CONFIDENCE
from .faces.detectors import DEFAULT_DETECTOR, open_detector
from .faces.face_track import FaceTrack, TrackSettings, build_face_track
from .faces.identities import FaceAt, Identities, SelectBy, cluster_tracks, select, sort_identities
from .faces.occlusion import collect_masks, occlusion_masks
from .faces.report import Selection
from .faces.segmenters import open_segmenter
from .faces.tracker import track_faces
from .models.syncnet import SyncNet
from .progress import ShowProgress, run, run_with_progress, shown
from .scoring.score import Score, score_track
from .video.frame_source import FrameSource
from .video.video_file import VideoFile
from .weights import loader, locate
from .weights.catalog import SYNCNET
from .weights.download import download_files
from .weights.locate import Folders


def open_video(video: str | Path | FrameSource) -> FrameSource:
    """Open a video file by its path. Return a frame source unchanged."""
    return VideoFile(video) if isinstance(video, (str, Path)) else video


def detect_faces(
    video: str | Path | FrameSource,
    folders: Folders,
    *,
    detector: str = DEFAULT_DETECTOR,
    min_confidence: float = DEFAULT_MIN_CONFIDENCE,
    landmarks: Mapping[str, Any] | None = None,
    progress: ShowProgress | bool = False,
) -> Identities:
    """Detect and track every face of a video, and cluster the tracks into identities.

    Args:
        folders: folders with the weights of the detector.
        detector: a name of `faces.detectors.DETECTORS`.
        min_confidence: 0 to 1. Lower values find more faces, and more objects that are not faces.
        landmarks: ComfyUI's FACE_LANDMARKS, used in place of a detector.
        progress: see `progress.ShowProgress`.
    """
    source = open_video(video)
    if landmarks is not None:
        detector = "landmarks"
        opened = precomputed.PrecomputedDetector(precomputed.from_comfyui(landmarks, source))
    else:
        opened = open_detector(partial(locate.require, folders=folders), min_confidence, detector)
    with opened, closing(track_faces(source, opened)) as frames:
        identities = cluster_tracks(source, shown(frames, "faces", source.frame_count, progress))
    return replace(identities, params={"detector": detector, "min_confidence": min_confidence})


def select_face(
    identities: Identities,
    face: SelectBy = "largest",
    index: int = 1,
    *,
    reference: np.ndarray | None = None,
    at: FaceAt | None = None,
    speech_of_source: str | Path | Waveform | MonoSound | None = None,
    settings: TrackSettings | None = None,
) -> Selection:
    """Select one person, and build the track of their face.

    Args:
        face: the order of the people.
        index: number of the person in that order, from 1.
        reference: an appearance, see `faces.identities.reference_appearance`: the most similar people come first.
        at: a point in a frame. The person at this point comes first.
        speech_of_source: for `face="speaking"`, see `read_speech`. Other orders ignore this argument.
        settings: gaps, yaw limit and smoothing of the track.

    Raises:
        FaceError: the video has no face or too few people, or no mouth can be compared with the sound.
        AudioError: see `read_speech`.
    """
    settings, levels = settings or TrackSettings(), None
    if face == "speaking" and reference is None:
        source = identities.source
        times = chain(map(source.time_of, range(source.frame_count)), [source.duration_seconds])
        levels = frame_levels(read_speech(source, speech_of_source).samples, times)
    identity = select(identities, face, index, reference, at, levels)
    track = build_face_track(identities, identity, settings)
    track = replace(track, params={**identities.params, **track.params, "face": face, "face_index": index})
    if at is not None:
        track = replace(track, params={**track.params, "face_at": list(at)})
    return Selection(sort_identities(identities, face, reference, at, levels), identity, track, settings)


def find_occlusion(
    track: FaceTrack,
    folders: Folders,
    occlusion: str = "auto",
    *,
    place: Place | None = None,
    temp_dir: Path | None = None,
    progress: ShowProgress | bool = False,
) -> FaceTrack:
    """Find hands and objects in front of a face, so that they stay in front of the new mouth.

    Args:
        track: the face track, see `select_face`.
        folders: folders with the weights of the segmenter.
        occlusion: a key of `faces.segmenters.SEGMENTERS`.
        place: decides where a network of torch runs, see `faces.clip_segmenter`. None: torch's default device.
        temp_dir: folder for masks that do not fit in RAM. None: the system's temporary folder.
        progress: see `progress.ShowProgress`.

    Returns:
        A copy of the track with its occlusion masks.

    Raises:
        UsageError: the segmenter does not exist.
        WeightsError: the weights are missing or wrong.
    """
    opened = open_segmenter(partial(locate.require, folders=folders), occlusion, place)
    with closing(opened) as segmenter, closing(occlusion_masks(track, segmenter)) as masks:
        steps = shown(masks, "occlusion", int(track.present.sum()), progress)
        return collect_masks(steps, track, {"occlusion": occlusion}, temp_dir)


def read_speech(source: FrameSource, speech_of_source: str | Path | Waveform | MonoSound | None = None) -> MonoSound:
    """The sound of a video, which the order "speaking" compares with the mouths.

    Args:
        speech_of_source: a recording that starts with the first frame. None takes the audio of the video file.

    Raises:
        AudioError: the source is not a video file with sound, or the recording cannot be read.
    """
    if speech_of_source is not None:
        if isinstance(speech_of_source, (str, Path)):
            return read_mono(speech_of_source, name="speech_of_source")
        return mono_sound(speech_of_source, "speech_of_source")
    cause: AudioError | None = None
    if isinstance(source, VideoFile):
        try:
            content = source.content if isinstance(source.content, Path) else BytesIO(source.content)
            return read_mono(content, name=source.name, start_seconds=source.start_seconds)
        except AudioError as error:
            cause = error
    raise AudioError(
        f'"face" is set to speaking, but {source.name} has no sound that LatentSync can read. '
        'Set "speech_of_source" to the sound of the video, or choose another order in "face".'
    ) from cause


def load_syncnet(
    folders: Folders,
    *,
    device: str | torch.device | None = None,
    download: bool = False,
    progress: bool = False,
) -> SyncNet:
    """Load SyncNet v2, which scores how well lips and audio fit together. The weights are for research use (CC-BY).

    Args:
        folders: folders with its weights, see `weights.locate.folders_in`.
        device: device of SyncNet. None takes torch's default device.
        download: download the file first if it is missing, 55 MB from the University of Oxford.
        progress: show the download on stderr.

    Raises:
        WeightsError: the file is missing or wrong, or the download failed.
    """
    if download and not locate.exists(SYNCNET, folders):
        (run_with_progress if progress else run)(download_files([SYNCNET], folders))
    device = torch.get_default_device() if device is None else torch.device(device)
    return loader.load_syncnet(locate.require(SYNCNET, folders)).to(device)


def score_video(
    video: str | Path | FrameSource,
    audio: str | Path | Waveform | MonoSound | None = None,
    *,
    models_dir: str | Path | None = None,
    face: SelectBy | FaceTrack = "largest",
    face_index: int = 1,
    device: str | torch.device | None = None,
    download: bool = False,
    progress: ShowProgress | bool = False,
) -> Score:
    """Score how well the lips of a person in a video fit the audio of the video, or another recording.

    Without the weights of SyncNet, the function measures only the mouth opening (`Score.mouth_sync`, `Score.lip_leak`).

    Args:
        video: a video file, or any frame source.
        audio: a file or a recording that starts with the first frame. None takes the audio of the video file.
        models_dir: a models folder with ComfyUI's layout. Default: ~/.cache/latentsync.
        face, face_index: as in the call of `LipSyncPipeline`.
        device: device of SyncNet. None takes torch's default device.
        download: download the weights of SyncNet (research use, CC-BY) and of the face detector if they are missing.
        progress: see `progress.ShowProgress`.

    Raises:
        LatentSyncError: there is no face or no sound, or the video is too short. The message says what to do.
    """
    if audio is None:
        if not isinstance(video, (str, Path)):
            raise UsageError('An image batch has no sound. Set "audio" to a recording.')
        audio = video
    sound = audio if isinstance(audio, (Waveform, MonoSound)) else read_mono(audio)
    folders = locate.folders_in(Path(models_dir or locate.DEFAULT_MODELS_DIR).expanduser())
    if download:
        missing = [file for file in (SYNCNET, locate.FACE_LANDMARKER) if not locate.exists(file, folders)]
        run(download_files(missing, folders))
    syncnet = load_syncnet(folders, device=device) if locate.exists(SYNCNET, folders) else None
    if not isinstance(face, FaceTrack):
        people = detect_faces(video, folders, progress=progress)
        face = select_face(people, face, face_index, speech_of_source=sound).track
    return score_track(face, sound, syncnet=syncnet, progress=progress)
