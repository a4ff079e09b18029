"""The Score node."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import comfy.model_management as mm
from comfy_api.input import VideoInput
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.faces.detection import DEFAULT_MIN_CONFIDENCE
from ..latentsync.faces.identities import SELECT_BY, SelectBy
from . import conversions
from .detection_cache import content_key, shared_cache
from .io_types import CATEGORY, KEEPS_PREVIEW, expect_type
from .model_folders import model_folders
from .progress import run_with_progress, with_oom_message, with_progress


class LatentSyncScore(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncScore",
            display_name="LatentSync Score",
            category=CATEGORY,
            is_output_node=True,
            **KEEPS_PREVIEW,
            description="Measures how well the lips in a video fit the audio, and by how much the audio is early "
            "or late. Compare the scores of several results with each other and with the original video. The score "
            "does not measure the quality of the picture.",
            search_aliases=["lip sync score", "syncnet", "sync confidence", "LSE-C", "LSE-D", "audio offset"],
            inputs=[
                io.Video.Input(
                    "video", tooltip="Connect the video to measure. The node also outputs this video, unchanged."
                ),
                io.Combo.Input(
                    "face",
                    options=list(SELECT_BY),
                    default=SELECT_BY[0],
                    tooltip="Choose the order of the people, as in Face Prep.",
                ),
                io.Int.Input(
                    "face_index",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Enter the number of the person in the order of 'face'. The node measures only this "
                    "person.",
                ),
                io.Boolean.Input(
                    "download_missing",
                    default=False,
                    tooltip="Download missing weights of SyncNet (55 MB, for research use, CC-BY) and of the face "
                    "detector (4 MB). The node verifies every file.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Connect another recording that starts at the same time as the video. By default, the node "
                    "uses the audio of the video.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The same video."),
                io.Float.Output(
                    display_name="confidence",
                    tooltip="The sync confidence of SyncNet (Sync-C). Higher is better. Real speech typically has "
                    "a confidence of 6 to 9. NaN means that SyncNet's weights are missing.",
                ),
                io.Float.Output(
                    display_name="distance",
                    tooltip="The sync distance of SyncNet (Sync-D). Lower is better. NaN means that SyncNet's "
                    "weights are missing.",
                ),
                io.Int.Output(
                    display_name="offset",
                    tooltip="How far the audio is ahead of the lips, in frames of 40 ms. A negative value means that "
                    "the audio is late.",
                ),
                io.String.Output(display_name="verdict", tooltip="A summary of the score in sentences, with advice."),
                io.Image.Output(
                    display_name="chart",
                    tooltip="A chart of the distance at each offset, and of the confidence over time. The chart "
                    "shades parts with weak sync.",
                ),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        video: VideoInput,
        face: SelectBy,
        face_index: int,
        download_missing: bool,
        audio: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.faces.detectors import DEFAULT_DETECTOR
        from ..latentsync.scoring.plot import plot_score
        from ..latentsync.scoring.score import score_track
        from ..latentsync.stages import detect_faces, load_syncnet, select_face
        from ..latentsync.weights import locate
        from ..latentsync.weights.catalog import FACE_LANDMARKER, SYNCNET
        from ..latentsync.weights.download import download_files

        expect_type("video", video, VideoInput, "Load Video, or another VIDEO output")
        folders, device = model_folders(), mm.get_torch_device()
        waveform = conversions.video_sound(video) if audio is None else conversions.waveform("audio", audio)
        if download_missing:
            missing = [file for file in (SYNCNET, FACE_LANDMARKER) if not locate.exists(file, folders)]
            run_with_progress(download_files(missing, folders))
        frames = conversions.frame_source(video, 25.0)
        search = partial(detect_faces, frames, folders, progress=with_progress)
        people, warnings = shared_cache().found(
            (content_key(video), DEFAULT_DETECTOR, DEFAULT_MIN_CONFIDENCE), frames, search
        )
        selection = select_face(people, face, face_index, speech_of_source=waveform)
        syncnet = None
        if locate.exists(SYNCNET, folders):
            syncnet = with_oom_message(lambda: load_syncnet(folders, device=device))
        measure = partial(score_track, selection.track, waveform, syncnet=syncnet, progress=with_progress)
        score = with_oom_message(measure)
        verdict = [score.verdict, *waveform.warnings, *warnings]
        if syncnet is None:
            verdict.append(
                "The weights of SyncNet are missing, so there is no confidence. Switch on download_missing "
                f"({SYNCNET.license})."
            )
        chart = conversions.picture(plot_score(score))
        text = "\n".join(verdict)
        shown = {**ui.PreviewImage(chart, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(video, score.confidence, score.distance, score.offset_frames, text, chart, ui=shown)
