"""LatentSync as a library: give any talking video new speech.

The package imports names on first use, so that `import latentsync` does not load torch or another large library.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio.background import BackgroundSettings as BackgroundSettings
    from .audio.features import AudioFeatures as AudioFeatures
    from .audio.features import AudioSettings as AudioSettings
    from .audio.waveform import Waveform as Waveform
    from .compositing.settings import BlendSettings as BlendSettings
    from .compositing.settings import MaskEdge as MaskEdge
    from .errors import AudioError as AudioError
    from .errors import DependencyError as DependencyError
    from .errors import FaceError as FaceError
    from .errors import LatentSyncError as LatentSyncError
    from .errors import MediaError as MediaError
    from .errors import OutOfMemoryError as OutOfMemoryError
    from .errors import ScoreError as ScoreError
    from .errors import StorageError as StorageError
    from .errors import UsageError as UsageError
    from .errors import WeightsError as WeightsError
    from .faces.face_track import FaceTrack as FaceTrack
    from .faces.face_track import TrackSettings as TrackSettings
    from .faces.identities import Identities as Identities
    from .output.result import LipSyncResult as LipSyncResult
    from .pipeline import LipSyncPipeline as LipSyncPipeline
    from .sampling.lip_track import LipTrack as LipTrack
    from .sampling.settings import SamplerSettings as SamplerSettings
    from .scoring.score import Score as Score
    from .stages import detect_faces as detect_faces
    from .stages import find_occlusion as find_occlusion
    from .stages import load_syncnet as load_syncnet
    from .stages import score_video as score_video
    from .stages import select_face as select_face
    from .video.frame_source import FrameSource as FrameSource
    from .video.frame_source import ImageBatch as ImageBatch
    from .video.video_file import VideoFile as VideoFile

__version__ = "0.1.0"

_MODULES = {
    "audio.background": ("BackgroundSettings",),
    "audio.features": ("AudioFeatures", "AudioSettings"),
    "audio.waveform": ("Waveform",),
    "compositing.settings": ("BlendSettings", "MaskEdge"),
    "errors": (
        "AudioError",
        "DependencyError",
        "FaceError",
        "LatentSyncError",
        "MediaError",
        "OutOfMemoryError",
        "ScoreError",
        "StorageError",
        "UsageError",
        "WeightsError",
    ),
    "faces.face_track": ("FaceTrack", "TrackSettings"),
    "faces.identities": ("Identities",),
    "output.result": ("LipSyncResult",),
    "pipeline": ("LipSyncPipeline",),
    "stages": ("detect_faces", "find_occlusion", "load_syncnet", "score_video", "select_face"),
    "sampling.lip_track": ("LipTrack",),
    "sampling.settings": ("SamplerSettings",),
    "scoring.score": ("Score",),
    "video.frame_source": ("FrameSource", "ImageBatch"),
    "video.video_file": ("VideoFile",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pipeline  # noqa: F401 # pyright: ignore[reportUnusedImport] - imports every module of _HOME

    return getattr(sys.modules[f"{__name__}.{_HOME[name]}"], name)
