"""Video Combine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.cli_args import args
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io, ui
from typing_extensions import override

from . import convert, runtime
from .sockets import CATEGORY, Lips

if TYPE_CHECKING:
    from ..latentsync.types import LipTrack


class LatentSyncVideoCombine(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncVideoCombine",
            display_name="LatentSync Video Combine",
            category=CATEGORY,
            description="Puts the lips back and writes an mp4 (h264, AAC) frame by frame, in little memory.",
            search_aliases=["lip sync video", "save lip sync", "combine video"],
            inputs=[
                Lips.Input("lips", tooltip="From Sampler."),
                io.String.Input(
                    "filename_prefix",
                    default="video/LatentSync",
                    tooltip="Name of the file in ComfyUI's output folder; a counter is added. "
                    "May contain %date:yyyy-MM-dd% and the like.",
                ),
                io.Int.Input(
                    "crf",
                    default=18,
                    min=0,
                    max=51,
                    tooltip="Quality of the picture: lower is better and larger. 18 looks like the source.",
                ),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Heard instead of the speech: the full mix of a song, for example."
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The finished video."),
                io.String.Output(display_name="filename", tooltip="Its name in ComfyUI's output folder."),
            ],
            is_output_node=True,
        )

    @classmethod
    @override
    def execute(
        cls, lips: LipTrack, filename_prefix: str, crf: int, audio: Mapping[str, Any] | None = None
    ) -> io.NodeOutput:
        from ..latentsync import pipeline
        from ..latentsync.writer import VideoWriter

        source = lips.track.source
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), source.width, source.height
        )
        path = Path(folder) / f"{name}_{counter:05}_.mp4"
        with VideoWriter(
            path,
            rate=lips.timeline.rate,
            height=source.height,
            width=source.width,
            crf=crf,
            waveform=lips.waveform if audio is None else lips.timeline.fit(convert.waveform(audio)),
            tags=cls._tags(),
        ) as writer:
            for made in runtime.tracked(pipeline.composite(lips), lips.timeline.frame_count):
                writer.write(made.frame)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(VideoFromFile(str(path)), (Path(subfolder) / path.name).as_posix(), ui=shown)

    @classmethod
    def _tags(cls) -> dict[str, str]:
        """The graph, as ComfyUI's own nodes store it: dropping the file on the canvas restores it."""
        if args.disable_metadata:
            return {}
        graph = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        return {key: json.dumps(value) for key, value in graph.items() if value is not None}
