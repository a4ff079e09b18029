"""The Face Prep node."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.faces.detection import DEFAULT_MIN_CONFIDENCE
from ..latentsync.faces.face_track import Smoothing, TrackSettings
from ..latentsync.faces.identities import SELECT_BY, SelectBy
from ..latentsync.faces.segmenters import NO_SEGMENTER, OCCLUSION
from . import conversions
from .detection_cache import Found, content_key, shared_cache
from .io_types import CATEGORY, KEEPS_PREVIEW, FaceLandmarks, FaceTracks, expect_type
from .model_folders import model_folders, temp_folder
from .model_loader import managed
from .progress import run_with_progress, show_text, with_oom_message, with_progress

if TYPE_CHECKING:
    from comfy_api.input import VideoInput

    from ..latentsync.weights.locate import Folders

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
            description="Detects and tracks every face in the video, and selects one person. Frames without this "
            "person's face stay unchanged. The preview shows all people, with a border around the selected person. To "
            "see the preview, run only this node.",
            is_output_node=True,
            **KEEPS_PREVIEW,
            search_aliases=["lip sync face", "face tracking", "face alignment", "talking avatar"],
            inputs=[
                io.MultiType.Input(
                    "source",
                    types=[io.Video, io.Image],
                    tooltip="Connect the original video. The node reads a VIDEO from its file and "
                    "needs little RAM. An IMAGE batch stays in RAM.",
                ),
                io.Float.Input(
                    "image_fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.001,
                    tooltip="Set the frame rate of an IMAGE batch, in fps. The node ignores this value for a "
                    "VIDEO, because a VIDEO contains its frame rate.",
                ),
                io.Combo.Input(
                    "face",
                    options=list(SELECT_BY),
                    default=SELECT_BY[0],
                    tooltip="Choose how to order the people: by face area, average position or number of frames. "
                    "'speaking' compares the mouth movement with the sound of the video.",
                ),
                io.Int.Input(
                    "face_index",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Enter the person's number from the preview. 1 is the first person in the order of "
                    "'face', or the person most similar to 'reference_face'.",
                ),
                io.Image.Input(
                    "reference_face",
                    optional=True,
                    tooltip="Connect an image of the person. The node then orders people by similarity of skin, "
                    "hair and light. A frame of the same video works best.",
                ),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="Connect face landmarks (478 points of the MediaPipe mesh) to replace the face "
                    "detection. Use landmarks for cartoons.",
                ),
                io.Audio.Input(
                    "speech_of_source",
                    optional=True,
                    tooltip="Connect the sound of the original video if 'source' is an IMAGE batch and 'face' is "
                    "'speaking'. For a VIDEO, the node uses the sound of the VIDEO.",
                ),
                io.Float.Input(
                    "min_confidence",
                    default=DEFAULT_MIN_CONFIDENCE,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Set the lowest score of a detected face. Lower the value if the node misses faces. "
                    "Raise the value if the node detects hands or pictures as faces.",
                ),
                io.Int.Input(
                    "max_gap",
                    default=defaults.max_gap_frames,
                    min=0,
                    max=250,
                    advanced=True,
                    tooltip="Set the longest gap between two detections that the node fills, in frames. Frames in "
                    "longer gaps stay unchanged.",
                ),
                io.Float.Input(
                    "max_yaw",
                    default=defaults.max_yaw_degrees,
                    min=1.0,
                    max=90.0,
                    step=1.0,
                    advanced=True,
                    tooltip="Set the largest head turn, in degrees. The node treats frames with a larger turn like "
                    "frames without a face. Lower the value if side views look wrong.",
                ),
                io.Combo.Input(
                    "smoothing",
                    options=list(get_args(Smoothing)),
                    default=defaults.smoothing,
                    advanced=True,
                    tooltip="Choose the filter that smooths the position of the face crop. 'zero-lag' has the "
                    "least jitter and no delay. 'official' is the filter of the official code.",
                ),
                io.String.Input(
                    "face_at",
                    default="",
                    advanced=True,
                    tooltip="Enter a point on the person's face as x, y, frame, such as 640, 360, 0. This person "
                    "becomes number 1. The first frame is 0. Leave the field empty to use 'face'.",
                ),
                io.Combo.Input(
                    "occlusion",
                    options=list(OCCLUSION),
                    default=NO_SEGMENTER,
                    advanced=True,
                    tooltip="Choose how to keep hands and objects in front of the new mouth. 'auto' needs a model "
                    "file of 16 MB. 'fine' uses CLIPSeg and needs a model file of 600 MB.",
                ),
                io.Boolean.Input(
                    "download_missing",
                    default=False,
                    advanced=True,
                    tooltip="Download the missing model file of 'occlusion' auto (16 MB, Apache-2.0). The node "
                    "verifies the file.",
                ),
            ],
            outputs=[
                FaceTracks.Output(display_name="face_track", tooltip="Connect this output to Sampler."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="An image of all people with their numbers. The selected person has a border. Another "
                    "image tints the objects that 'occlusion' finds.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="A text that lists the people, the frames of each person, the unchanged frames, and the "
                    "frames with an object in front of the mouth.",
                ),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        source: VideoInput | torch.Tensor,
        image_fps: float,
        face: SelectBy,
        face_index: int,
        min_confidence: float,
        max_gap: int,
        max_yaw: float,
        smoothing: Smoothing,
        face_at: str,
        occlusion: str,
        download_missing: bool,
        reference_face: torch.Tensor | None = None,
        face_landmarks: Mapping[str, Any] | None = None,
        speech_of_source: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.faces import report
        from ..latentsync.faces.detectors import DEFAULT_DETECTOR, open_detector
        from ..latentsync.faces.identities import FaceAt, reference_appearance
        from ..latentsync.stages import detect_faces, find_occlusion, read_speech, select_face
        from ..latentsync.weights.locate import require

        settings, folders = TrackSettings(max_gap, max_yaw, smoothing), model_folders()
        at = FaceAt.parse(face_at)
        if reference_face is not None:
            expect_type("reference_face", reference_face, torch.Tensor, "Load Image, or any node that makes an IMAGE")
        if face_landmarks is not None:
            expect_type("face_landmarks", face_landmarks, Mapping, "any node that makes FACE_LANDMARKS")
        frames = conversions.frame_source(source, image_fps)
        if occlusion != NO_SEGMENTER:  # without the model, fail before the long search
            require_segmenter(occlusion, folders, download_missing=download_missing)
        speech = None
        if face == "speaking" and reference_face is None:  # without sound, fail before the long search
            speech = read_speech(frames, conversions.speech_of_source(source, speech_of_source))
        search = partial(detect_faces, frames, folders, min_confidence=min_confidence, progress=with_progress)
        if face_landmarks is None:
            key = content_key(source), DEFAULT_DETECTOR, min_confidence
            people, warnings = shared_cache().found(key, frames, search)
        else:
            people, warnings = Found(search(landmarks=face_landmarks), tuple(frames.warnings()))
        reference = None
        if reference_face is not None:
            with open_detector(partial(require, folders=folders), min_confidence) as detector:
                reference = reference_appearance(reference_face[0, ..., :3].float().cpu().numpy(), detector)
        selection = select_face(
            people, face, face_index, reference=reference, at=at, speech_of_source=speech, settings=settings
        )
        if occlusion != NO_SEGMENTER:
            find = partial(find_occlusion, place=managed, temp_dir=temp_folder(), progress=with_progress)
            track = with_oom_message(partial(find, selection.track, folders, occlusion))
            selection = selection._replace(track=track)
        people = selection.identities
        preview = torch.stack([conversions.image(crop) for crop in report.preview_crops(people, PREVIEW_PX, selection)])
        text = "\n".join([report.report_text(people, selection), *warnings, *(speech.warnings if speech else ())])
        chosen, frames_with_face = selection.identity.number, int(selection.track.present.sum())
        summary = f"Person {chosen} of {len(people.members)}, in {frames_with_face} of {frames.frame_count} frames"
        show_text(f"{summary}\n{text}")  # the node shows two lines and can scroll
        shown = {**ui.PreviewImage(preview, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(selection.track, preview, text, ui=shown)


def require_segmenter(occlusion: str, folders: Folders, *, download_missing: bool) -> None:
    """Download the model of a segmenter if allowed. Raises WeightsError if the model is missing."""
    from ..latentsync.faces.segmenters import segmenter_entry
    from ..latentsync.weights.catalog import WeightFile
    from ..latentsync.weights.download import download_files
    from ..latentsync.weights.locate import exists, require

    model = segmenter_entry(occlusion).file
    if download_missing and isinstance(model, WeightFile) and not exists(model, folders):
        run_with_progress(download_files([model], folders))
    require(model, folders)
