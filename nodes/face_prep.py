"""Face Prep."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.faces.face_track import Smoothing, TrackSettings
from ..latentsync.faces.identities import SELECT_BY
from . import conversions, model_folders, progress
from .detection_cache import Found, content_key, shared_cache
from .io_types import CATEGORY, FaceLandmarks, Faces, expect_type

if TYPE_CHECKING:
    import numpy as np
    from comfy_api.input import VideoInput

    from ..latentsync.faces.detection import FaceDetector
    from ..latentsync.faces.identities import Identities
    from ..latentsync.video.frame_source import FrameSource


class LatentSyncFacePrep(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        defaults = TrackSettings()
        return io.Schema(
            node_id="LatentSyncFacePrep",
            display_name="LatentSync Face Prep",
            category=CATEGORY,
            description="Finds every face, follows it through the video, and chooses one. Frames without it stay as "
            "they are. The node shows everybody it found, numbered.",
            search_aliases=["lip sync face", "face tracking", "face alignment"],
            inputs=[
                io.MultiType.Input(
                    "source",
                    types=[io.Video, io.Image],
                    tooltip="The video whose lips will move. A VIDEO is streamed: little memory at any length; "
                    "an IMAGE batch (from an image-to-video sampler, say) is taken as it is.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.001,
                    tooltip="Frames per second of an IMAGE batch. A VIDEO brings its own, and this is not used.",
                ),
                io.Combo.Input(
                    "face",
                    options=list(SELECT_BY),
                    default=SELECT_BY[0],
                    tooltip="Whose lips move, one choice for the whole clip. Largest: whose face fills most of "
                    "the picture over the clip. The positions are averages over the clip.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=63,
                    tooltip="0 takes the first face of that order, 1 the second, and so on.",
                ),
                io.Float.Input(
                    "min_confidence",
                    default=0.5,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="How sure the detector must be that it sees a face. Lower it for faces that are missed; "
                    "raise it if hands or pictures are taken for faces.",
                ),
                io.Int.Input(
                    "max_gap",
                    default=defaults.max_gap_frames,
                    min=0,
                    max=250,
                    tooltip="So many frames in a row without the face are bridged. Longer gaps stay as they are in the "
                    "source, and the lips fade out and in around them.",
                ),
                io.Float.Input(
                    "max_yaw",
                    default=defaults.max_yaw_degrees,
                    min=1.0,
                    max=90.0,
                    step=1.0,
                    tooltip="Degrees. A head turned further than this counts as a frame without the face: bridged if "
                    "it is brief (max_gap), else left as it is.",
                ),
                io.Combo.Input(
                    "smoothing",
                    options=list(get_args(Smoothing)),
                    default=defaults.smoothing,
                    tooltip="How the crop is steadied. Zero-lag: the least jitter, without trailing behind the head. "
                    "Upstream: LatentSync's own filter, for results like those of the official program.",
                ),
                io.Image.Input(
                    "reference_face",
                    optional=True,
                    tooltip="A picture of the person: the most similar face is taken, and face_index counts by "
                    "likeness. Skin, hair and light are compared, no identity: best is a frame of the same video.",
                ),
                FaceLandmarks.Input(
                    "landmarks",
                    optional=True,
                    tooltip="Face landmarks (478 points of MediaPipe's mesh) from another node, "
                    "used instead of detecting: also the way for cartoons.",
                ),
            ],
            outputs=[
                Faces.Output(display_name="faces", tooltip="To Sampler."),
                io.Image.Output(display_name="preview", tooltip="Everybody who was found, numbered."),
                io.String.Output(display_name="report", tooltip="Who was found, where, and what is left alone."),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        source: VideoInput | torch.Tensor,
        fps: float,
        face: str,
        face_index: int,
        min_confidence: float,
        max_gap: int,
        max_yaw: float,
        smoothing: str,
        reference_face: torch.Tensor | None = None,
        landmarks: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.faces import identities, report
        from ..latentsync.faces.face_track import build_face_track

        settings = TrackSettings(max_gap, max_yaw, smoothing)
        if reference_face is not None:
            expect_type("reference_face", reference_face, torch.Tensor, "Load Image, or whatever makes an IMAGE")
        if landmarks is not None:
            expect_type("landmarks", landmarks, Mapping, "whatever makes FACE_LANDMARKS")
        people, warnings = _found(source, fps, min_confidence, landmarks)
        reference = None if reference_face is None else _look(reference_face, min_confidence)
        person = identities.select(people, face, face_index, reference)
        track = build_face_track(people, person, settings)
        choice = {"face": face, "face_index": face_index, "min_confidence": min_confidence}
        track = replace(track, params={**track.params, **choice})
        preview = _preview(people)
        said = "\n".join([report.report_text(people, report.Selection(person, track, settings)), *warnings])
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), **ui.PreviewText(said).as_dict()}
        return io.NodeOutput(track, preview, said, ui=shown)


def _found(
    source: VideoInput | torch.Tensor, fps: float, min_confidence: float, landmarks: Mapping[str, Any] | None
) -> Found:
    """Everybody in the source, found once for all Face Preps that look at it in the same way."""
    from ..latentsync.faces.detectors import DEFAULT_DETECTOR
    from ..latentsync.faces.identities import cluster_tracks
    from ..latentsync.faces.precomputed import PrecomputedDetector, from_comfyui
    from ..latentsync.faces.tracker import track_faces

    frames = conversions.frame_source(source, fps)
    if landmarks is not None:
        given = PrecomputedDetector(from_comfyui(landmarks, frames))
        people = cluster_tracks(frames, progress.with_progress(track_faces(frames, given), frames.frame_count))
        return Found(people, tuple(frames.warnings()))
    key = content_key(source), DEFAULT_DETECTOR, min_confidence
    return shared_cache().found(key, frames, lambda: _detected(frames, min_confidence))


def _detected(frames: FrameSource, min_confidence: float) -> Identities:
    from ..latentsync.faces.identities import cluster_tracks
    from ..latentsync.faces.tracker import track_faces

    with _detector(min_confidence) as detector, closing(track_faces(frames, detector)) as scanned:
        return cluster_tracks(frames, progress.with_progress(scanned, frames.frame_count))


def _detector(min_confidence: float) -> FaceDetector:
    from ..latentsync import hub
    from ..latentsync.faces.detectors import open_detector

    folders = model_folders.model_folders()
    return open_detector(lambda file: hub.require(file, folders), min_confidence)


def _look(picture: torch.Tensor, min_confidence: float) -> np.ndarray:
    """The look of the face in the first picture of a batch."""
    from ..latentsync.faces.identities import reference_appearance

    with _detector(min_confidence) as detector:
        return reference_appearance(picture[0, ..., :3].float().cpu().numpy(), detector)


def _preview(people: Identities) -> torch.Tensor:
    """(identities, R, R, 3): numbered crops."""
    from ..latentsync.faces import report
    from ..latentsync.weights.catalog import MODELS

    return torch.stack([conversions.image(crop) for crop in report.identity_crops(people, MODELS["1.5"].resolution)])
