"""The Video Combine node."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import folder_paths
from comfy.cli_args import args
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.audio.background import BackgroundSettings
from ..latentsync.errors import UsageError
from ..latentsync.output.formats import available_formats, format_named
from . import conversions
from .blend_inputs import (
    check_paste_mode,
    lip_sync_result,
    lips_input,
    match_texture_input,
    paste_inputs,
    protect_mask_input,
)
from .filename_prefix import expand_tokens
from .io_types import CATEGORY
from .progress import with_progress

if TYPE_CHECKING:
    import torch

    from ..latentsync.output.result import LipSyncResult
    from ..latentsync.output.run_record import TensorInfo
    from ..latentsync.sampling.lip_track import LipTrack
    from ..latentsync.video.frame_source import FrameSource

log = logging.getLogger("latentsync")

MAX_COUNTERS = 100  # counters to try from the first free one, because other runs may use them too


class LatentSyncVideoCombine(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        background = BackgroundSettings()
        return io.Schema(
            node_id="LatentSyncVideoCombine",
            display_name="LatentSync Video Combine",
            category=CATEGORY,
            description="Pastes the new lips into the video, adds the speech, and saves the result as mp4, webm, "
            "mov or mkv. The node processes one frame after another, so it needs little RAM.",
            search_aliases=[
                "lip sync video",
                "save lip sync",
                "combine video",
                "dubbing",
                "\u5bf9\u53e3\u578b",
                "\u53e3\u578b\u540c\u6b65",
                "\u914d\u97f3",
            ],
            inputs=[
                lips_input(),
                protect_mask_input(),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="Connect other audio for the result, such as the full mix of a song. By default, the "
                    "result plays the speech.",
                ),
                io.Audio.Input(
                    "background",
                    optional=True,
                    tooltip="Connect room sound, music or effects without speech. The node mixes this background "
                    "under the speech, and limits the peaks of the mix.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video/LatentSync",
                    tooltip="Enter a name for the video file. The node adds a number. Tokens: %year%, %month%, "
                    "%day%, %hour%, %minute%, %second%, %width%, %height%, %date:yyyy-MM-dd%.",
                ),
                io.Combo.Input(
                    "format",
                    options=[form.name for form in available_formats()],
                    default=available_formats()[0].name,
                    tooltip="Choose the container and the codec. Browsers play h264 and vp9. ProRes and FFV1 are "
                    "for video editing. ProRes 4444, VP9 and FFV1 keep alpha. FFV1 is lossless.",
                ),
                io.Int.Input(
                    "crf",
                    default=18,
                    min=0,
                    max=51,
                    tooltip="Set the quality. Lower values give a better picture and a larger file. 18 looks like "
                    "the original video. ProRes and FFV1 ignore this value.",
                ),
                io.String.Input(
                    "consent",
                    default="",
                    tooltip="Describe what the person in the video agreed to. The node writes this text into the "
                    "record and the tags of the video. You can leave this input empty.",
                ),
                *paste_inputs(),
                io.Boolean.Input(
                    "save_record",
                    default=True,
                    advanced=True,
                    tooltip="Write the record NAME.json beside the video. The record lists the model, settings, "
                    "seed, file hashes and frame counts. The record stays on this computer.",
                ),
                match_texture_input(),
                io.Float.Input(
                    "background_gain_db",
                    default=background.gain_db,
                    min=-40.0,
                    max=40.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Set the level of the background, in dB. Lower the value if the speech is hard to hear. "
                    "Works only if 'background' is connected.",
                ),
                io.Float.Input(
                    "ducking_db",
                    default=background.ducking_db,
                    min=0.0,
                    max=40.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Set how much quieter the background is during speech, in dB. 0 keeps the level of the "
                    "background. Works only if 'background' is connected.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The finished video."),
                io.String.Output(
                    display_name="filename", tooltip="The name of the video file in ComfyUI's output folder."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    @override
    def validate_inputs(
        cls, lips: object = None, paste_mode: object = "", filename_prefix: object = None
    ) -> bool | str:
        """ComfyUI always passes `lips`, and shows the error at the other inputs. Old graphs have no `paste_mode`."""
        found = check_paste_mode(paste_mode)
        return check_prefix(filename_prefix) if found is True else found

    @classmethod
    @override
    def execute(
        cls,
        lips: Mapping[str, LipTrack],
        filename_prefix: str,
        format: str,
        crf: int,
        consent: str,
        paste_mode: str,
        mask_feather: float,
        mask_expand: float,
        color_match: bool,
        save_record: bool,
        match_texture: bool,
        background_gain_db: float,
        ducking_db: float,
        protect_mask: torch.Tensor | None = None,
        audio: Mapping[str, Any] | None = None,
        background: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.audio.waveform import check_samples
        from ..latentsync.output.output_path import reserve_path
        from ..latentsync.output.run_record import Recorder, RunRecord

        waveform = None
        if audio is not None:
            waveform = conversions.waveform("audio", audio)
            check_samples(waveform, "the audio of the video")
        result = lip_sync_result(
            lips, paste_mode, mask_feather, mask_expand, color_match, match_texture, protect_mask, waveform
        )
        if background is not None:
            result = replace(
                result,
                background=conversions.waveform("background", background),
                background_settings=BackgroundSettings(background_gain_db, ducking_db),
            )
        video_format = format_named(format)
        prefix = expand_tokens(filename_prefix, cls.hidden.prompt, datetime.now())
        paths, subfolder = _candidate_paths(prefix, video_format.suffix, result.source)
        record = RunRecord(consent=consent)
        cancelled = (mm.InterruptProcessingException,)
        with (
            reserve_path(paths, fresh=True) as path,
            Recorder(path, record, cancelled) if save_record else nullcontext(),
        ):
            if save_record:
                record.add_inputs(result.speakers, _recorded_inputs(result, protect_mask))
            result.save(
                path, format=video_format, crf=crf, tags=cls._graph_tags(), record=record, progress=with_progress
            )
        for note in record.notes:
            log.warning("%s", note)
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(VideoFromFile(str(path)), (Path(subfolder) / path.name).as_posix(), ui=shown)

    @classmethod
    def _graph_tags(cls) -> dict[str, str]:
        """The graph, as ComfyUI's own nodes store it. If you drop the video on the canvas, ComfyUI opens the graph."""
        if args.disable_metadata:
            return {}
        graph = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        return {key: json.dumps(value) for key, value in graph.items() if value is not None}


def check_prefix(prefix: object) -> bool | str:
    """True if the name is inside ComfyUI's output folder, or else the error for `validate_inputs`.

    ComfyUI itself checks the name only after sampling. ComfyUI then also follows links. None: the input is connected.
    """
    if not isinstance(prefix, str):
        return True
    output = Path(os.path.normpath(folder_paths.get_output_directory()))
    if "\0" in prefix:
        return '"filename_prefix" contains a null character. Enter a name without this character.'
    if Path(os.path.normpath(output / prefix)).is_relative_to(output):
        return True
    return (
        f'"filename_prefix" {prefix} is not in ComfyUI\'s output folder. Enter a name inside this folder, such as '
        "video/LatentSync."
    )


def _candidate_paths(prefix: str, suffix: str, source: FrameSource) -> tuple[Iterator[Path], str]:
    """File names for a prefix with increasing counters, and their folder inside ComfyUI's output folder."""
    try:
        folder, name, first, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory(), source.width, source.height
        )
    except Exception as error:  # ComfyUI raises Exception for a folder outside, and the system raises other errors
        reason = str(error).partition("\n")[0].strip(" *")
        raise UsageError(
            f'"filename_prefix" {prefix} cannot be used ({reason}). Enter a name inside ComfyUI\'s output folder.'
        ) from error
    counters = range(first, first + MAX_COUNTERS)
    return (Path(folder) / f"{name}_{counter:05}_{suffix}" for counter in counters), subfolder


def _recorded_inputs(result: LipSyncResult, protect_mask: torch.Tensor | None) -> Iterator[TensorInfo]:
    """The inputs for the record, without the video. For tensors, the record has no hash."""
    from ..latentsync.output.run_record import describe_tensor

    yield describe_tensor("audio", "audio", result.waveform.samples)
    if result.background is not None:
        yield describe_tensor("background", "background", result.background.samples)
    if protect_mask is not None:
        yield describe_tensor("protect_mask", "protect_mask", protect_mask)
    for lips in result.speakers:
        if lips.crops is not None:
            yield describe_tensor("crops", "crops", lips.crops)
