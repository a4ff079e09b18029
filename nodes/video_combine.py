"""Video Combine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import folder_paths
from comfy.cli_args import args
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.errors import UsageError
from ..latentsync.output.formats import available_formats, format_named
from . import conversions
from .blend_inputs import blend_inputs, lip_sync_result, lips_input, protect_input
from .filename_prefix import expand_tokens
from .io_types import CATEGORY
from .progress import with_progress

if TYPE_CHECKING:
    import torch

    from ..latentsync.output.result import LipSyncResult
    from ..latentsync.output.run_record import TensorInfo
    from ..latentsync.sampling.lip_track import LipTrack
    from ..latentsync.video.frame_source import FrameSource

MOST_AT_ONCE = 100  # of runs with one prefix, on one folder


class LatentSyncVideoCombine(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncVideoCombine",
            display_name="LatentSync Video Combine",
            category=CATEGORY,
            description="Puts the lips back and writes a video frame by frame, in little memory: mp4, webm, mov or "
            "mkv, with the original sound.",
            search_aliases=["lip sync video", "save lip sync", "combine video"],
            inputs=[
                lips_input(),
                io.String.Input(
                    "filename_prefix",
                    default="video/LatentSync",
                    tooltip="Name of the file in ComfyUI's output folder; a counter is added. "
                    "May contain %year%, %month%, %day%, %hour%, %minute%, %second%, %width% and %height%.",
                ),
                io.Combo.Input(
                    "format",
                    options=[form.name for form in available_formats()],
                    default=available_formats()[0].name,
                    tooltip="Container and codec. h264 and vp9 play in browsers; ProRes and FFV1 are for editing. "
                    "ProRes 4444, VP9 and FFV1 keep alpha; FFV1 loses nothing. Sound is AAC, Opus, PCM or FLAC.",
                ),
                io.Int.Input(
                    "crf",
                    default=18,
                    min=0,
                    max=51,
                    tooltip="Quality of the picture: lower is better and larger. 18 looks like the source. "
                    "ProRes and FFV1 have a quality of their own, and do not use it.",
                ),
                *blend_inputs(),
                protect_input(),
                io.Audio.Input(
                    "audio", optional=True, tooltip="Heard instead of the speech: the full mix of a song, for example."
                ),
                io.Boolean.Input(
                    "save_record",
                    default=True,
                    tooltip="Writes NAME.json beside the video: model, settings, seed, hashes of what went in and came "
                    "out, frames with and without new lips. It stays on this computer.",
                ),
                io.String.Input(
                    "consent",
                    default="",
                    tooltip="What the person who is seen agreed to. Goes into the record and into the video's tags.",
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
        cls,
        lips: Mapping[str, LipTrack],
        filename_prefix: str,
        format: str,
        crf: int,
        blend: str,
        feather: float,
        grow: float,
        color_match: bool,
        save_record: bool,
        consent: str,
        protect: torch.Tensor | None = None,
        audio: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.audio.waveform import check_samples
        from ..latentsync.output.output_path import reserve_path
        from ..latentsync.output.run_record import Recorder, RunRecord

        waveform = None
        if audio is not None:
            waveform = conversions.waveform("audio", audio)
            check_samples(waveform, "the audio of the video")
        result, video_format = (
            lip_sync_result(lips, blend, feather, grow, color_match, protect, waveform),
            format_named(format),
        )
        prefix = expand_tokens(filename_prefix, cls.hidden.prompt, datetime.now())
        paths, subfolder = _candidate_paths(prefix, video_format.suffix, result.source)
        record = RunRecord(consent=consent)
        cancelled = (mm.InterruptProcessingException,)
        with (
            reserve_path(paths, fresh=True) as path,
            Recorder(path, record, cancelled) if save_record else nullcontext(),
        ):
            if save_record:
                record.add_inputs(result.speakers, _recorded_inputs(result, protect))
            result.save(
                path, format=video_format, crf=crf, tags=cls._graph_tags(), record=record, progress=with_progress
            )
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(VideoFromFile(str(path)), (Path(subfolder) / path.name).as_posix(), ui=shown)

    @classmethod
    def _graph_tags(cls) -> dict[str, str]:
        """The graph, as ComfyUI's own nodes store it: dropping the file on the canvas restores it."""
        if args.disable_metadata:
            return {}
        graph = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        return {key: json.dumps(value) for key, value in graph.items() if value is not None}


def _candidate_paths(prefix: str, suffix: str, source: FrameSource) -> tuple[Iterator[Path], str]:
    """The names that a prefix stands for, by rising counters, and their folder inside ComfyUI's output folder."""
    try:
        folder, name, first, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory(), source.width, source.height
        )
    except Exception as error:  # core raises a bare one for a folder outside, and whatever the system says of a name
        reason = str(error).partition("\n")[0].strip(" *")
        raise UsageError(
            f"filename_prefix {prefix!r} cannot be used ({reason}): give a name inside ComfyUI's output folder"
        ) from error
    counters = range(first, first + MOST_AT_ONCE)
    return (Path(folder) / f"{name}_{counter:05}_{suffix}" for counter in counters), subfolder


def _recorded_inputs(result: LipSyncResult, protect: torch.Tensor | None) -> Iterator[TensorInfo]:
    """What the record says of the inputs besides the video. Tensors are described, not hashed."""
    from ..latentsync.output.run_record import describe_tensor

    yield describe_tensor("audio", "audio", result.waveform.samples)
    if protect is not None:
        yield describe_tensor("protect", "protect", protect)
    for lips in result.speakers:
        if lips.crops is not None:
            yield describe_tensor("crops", "crops", lips.crops)
