"""Video Combine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import folder_paths
import numpy as np
from comfy.cli_args import args
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.errors import UsageError
from ..latentsync.output.formats import available_formats, format_named
from . import conversions, progress
from .blend_inputs import alpha_of, blend_inputs, blend_settings, lips_input, protect_input, protection, speakers
from .io_types import CATEGORY

if TYPE_CHECKING:
    import torch

    from ..latentsync.audio.waveform import Waveform
    from ..latentsync.compositing.compositor import Composite
    from ..latentsync.compositing.settings import BlendMode
    from ..latentsync.output.formats import Format
    from ..latentsync.output.run_record import FileDigest
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
        blend: BlendMode,
        feather: float,
        grow: float,
        color_match: bool,
        save_record: bool,
        consent: str,
        protect: torch.Tensor | None = None,
        audio: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.claim import claimed
        from ..latentsync.compositing.compositor import composite
        from ..latentsync.output import run_record

        tracks, masks, form = speakers(lips), protection(protect), format_named(format)
        source = tracks[0].track.source
        names, subfolder = _names(filename_prefix, form.suffix, source)
        facts = run_record.RunRecord(consent=consent, settings={"format": form.name, "crf": crf})
        cancelled = (mm.InterruptProcessingException,)
        with (
            claimed(names, fresh=True) as path,
            run_record.Recorder(path, facts, cancelled) if save_record else nullcontext(),
        ):
            settings = blend_settings(blend, feather, grow, color_match)
            facts.describe(tracks, settings)
            heard = _heard(tracks, audio)
            if save_record:
                facts.identify(tracks, _given(tracks, heard, protect))
            made = composite(tracks, settings, masks)
            cls._write(path, made, tracks, form, crf, heard, run_record.tags(facts))
            facts.notes.extend(source.warnings())
        shown = ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)])
        return io.NodeOutput(VideoFromFile(str(path)), (Path(subfolder) / path.name).as_posix(), ui=shown)

    @classmethod
    def _write(
        cls,
        path: Path,
        made: Iterator[Composite],
        tracks: list[LipTrack],
        form: Format,
        crf: int,
        heard: Waveform,
        tags: dict[str, str],
    ) -> None:
        from ..latentsync.compositing.compositor import shared_timeline
        from ..latentsync.output.video_writer import VideoWriter

        source, timeline = tracks[0].track.source, shared_timeline(tracks)
        alpha = alpha_of(tracks[0]) if form.alpha_pixels else None
        writer = VideoWriter(
            path,
            rate=timeline.rate,
            height=source.height,
            width=source.width,
            form=form,
            crf=crf,
            waveform=heard,
            tags={**cls._tags(), **tags},
            color=source.color,
        )
        with writer:
            for i, (frame, _) in enumerate(progress.with_progress(made, timeline.frame_count)):
                writer.write(frame if alpha is None else _with_alpha(frame, alpha[timeline.source_index[i]]))

    @classmethod
    def _tags(cls) -> dict[str, str]:
        """The graph, as ComfyUI's own nodes store it: dropping the file on the canvas restores it."""
        if args.disable_metadata:
            return {}
        graph = {**(cls.hidden.extra_pnginfo or {}), "prompt": cls.hidden.prompt}
        return {key: json.dumps(value) for key, value in graph.items() if value is not None}


def _names(prefix: str, suffix: str, source: FrameSource) -> tuple[Iterator[Path], str]:
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


def _heard(tracks: list[LipTrack], audio: Mapping[str, Any] | None) -> Waveform:
    """The sound of the video: what is wired, or the speech of everybody."""
    from ..latentsync.audio.waveform import check_samples, mix
    from ..latentsync.compositing.compositor import shared_timeline

    if audio is None:
        return mix([track.waveform for track in tracks])
    heard = conversions.waveform("audio", audio)
    check_samples(heard, "audio")
    timeline = shared_timeline(tracks)
    return heard.fit_to(timeline.frame_count, timeline.rate)


def _given(tracks: list[LipTrack], heard: Waveform, protect: torch.Tensor | None) -> Iterator[FileDigest]:
    """What went in besides the video, as the record names it."""
    from ..latentsync.output.run_record import digest_tensor

    yield digest_tensor("audio", "the sound of the video", heard.samples)
    if protect is not None:
        yield digest_tensor("protect", "the protecting mask", protect)
    for track in tracks:
        if track.crops is not None:
            yield digest_tensor("crops", "the restored faces", track.crops)


def _with_alpha(frame: np.ndarray, alpha: torch.Tensor) -> np.ndarray:
    """A float frame (H, W, 3) and its alpha (H, W) as (H, W, 4)."""
    return np.concatenate([frame, alpha.to("cpu").float().numpy()[..., None]], axis=-1)
