"""Face Prep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from typing_extensions import override

from . import convert, runtime
from .sockets import CATEGORY, FaceLandmarks, Faces

if TYPE_CHECKING:
    from comfy_api.input import VideoInput

    from ..latentsync.media import FrameSource
    from ..latentsync.types import FaceTrack


class LatentSyncFacePrep(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncFacePrep",
            display_name="LatentSync Face Prep",
            category=CATEGORY,
            description="Finds the largest face and follows it through the video. Frames without it stay as they are.",
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
                io.Float.Input(
                    "min_confidence",
                    default=0.5,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="How sure the detector must be that it sees a face. Lower it for faces that are missed.",
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
                io.Image.Output(display_name="preview", tooltip="The face that was chosen, as the model sees it."),
                io.String.Output(display_name="report", tooltip="Frames with and without the face."),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        source: VideoInput | torch.Tensor,
        fps: float,
        min_confidence: float,
        landmarks: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.face.track import follow_largest

        frames = convert.frame_source(source, fps)
        track = follow_largest(frames, _faces(frames, min_confidence, landmarks))
        return io.NodeOutput(track, _preview(track), _report(track))


def _faces(frames: FrameSource, min_confidence: float, landmarks: Mapping[str, Any] | None) -> list[Any]:
    from ..latentsync import hub
    from ..latentsync.face.detect import FaceDetector
    from ..latentsync.face.landmarks import from_comfyui
    from ..latentsync.face.track import detect_frames
    from ..latentsync.spec import FACE_LANDMARKER

    if landmarks is not None:
        return from_comfyui(landmarks, frames)
    with FaceDetector(hub.require(FACE_LANDMARKER, runtime.model_folders()), min_confidence) as detector:
        return list(runtime.tracked(detect_frames(frames, detector), frames.frame_count))


def _preview(track: FaceTrack) -> torch.Tensor:
    """(1, R, R, 3): the crop of the middle frame that has the face."""
    from ..latentsync.face import align
    from ..latentsync.spec import MODELS

    resolution = MODELS["1.5"].resolution
    present = track.present.nonzero()[0]
    middle = int(present[len(present) // 2])
    matrix = align.matrices(track.points, resolution)[middle]
    (frame,) = track.source.read([middle])
    return convert.image(align.crop(frame, matrix, resolution)).movedim(0, -1)[None]


def _report(track: FaceTrack) -> str:
    present = int(track.present.sum())
    found = f"{track.source.name}: face in {present} of {track.source.frame_count} frames"
    return "\n".join([found, *track.source.remarks()])
