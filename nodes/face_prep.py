"""Face Prep."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.faces.face_track import Smoothing, TrackSettings
from ..latentsync.faces.identities import SELECT_BY, SelectBy
from . import conversions
from .detection_cache import Found, content_key, shared_cache
from .io_types import CATEGORY, FaceLandmarks, Faces, expect_type
from .model_folders import model_folders
from .progress import with_progress

if TYPE_CHECKING:
    from comfy_api.input import VideoInput

    from ..latentsync.faces.identities import Identities

PREVIEW_PX = 256


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
        face: SelectBy,
        face_index: int,
        min_confidence: float,
        max_gap: int,
        max_yaw: float,
        smoothing: Smoothing,
        reference_face: torch.Tensor | None = None,
        landmarks: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.faces import report
        from ..latentsync.faces.detectors import DEFAULT_DETECTOR, open_detector
        from ..latentsync.faces.identities import reference_appearance
        from ..latentsync.pipeline import detect_faces, select_face
        from ..latentsync.weights.locate import require

        settings, folders = TrackSettings(max_gap, max_yaw, smoothing), model_folders()
        if reference_face is not None:
            expect_type("reference_face", reference_face, torch.Tensor, "Load Image, or any node that makes an IMAGE")
        if landmarks is not None:
            expect_type("landmarks", landmarks, Mapping, "any node that makes FACE_LANDMARKS")
        frames = conversions.frame_source(source, fps)

        def search() -> Identities:
            return detect_faces(
                frames, folders, min_confidence=min_confidence, landmarks=landmarks, progress=with_progress
            )

        if landmarks is None:
            key = content_key(source), DEFAULT_DETECTOR, min_confidence
            people, warnings = shared_cache().found(key, frames, search)
        else:
            people, warnings = Found(search(), tuple(frames.warnings()))
        reference = None
        if reference_face is not None:
            with open_detector(partial(require, folders=folders), min_confidence) as detector:
                reference = reference_appearance(reference_face[0, ..., :3].float().cpu().numpy(), detector)
        selection = select_face(people, face, face_index, reference=reference, settings=settings)
        preview = torch.stack([conversions.image(crop) for crop in report.identity_crops(people, PREVIEW_PX)])
        text = "\n".join([report.report_text(people, selection), *warnings])
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(selection.track, preview, text, ui=shown)
