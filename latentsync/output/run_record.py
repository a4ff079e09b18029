"""The run record: model, inputs, settings, consent, outcome and output of a run.

The record contains the SHA-256 of each input file and output file. For a tensor, the record contains the shape and the
dtype, because a hash of one minute of 1080p images would read 37 GB. For a model file, the record contains the size,
which the loader also checks. The record contains no folders. docs/record.schema.json describes the format.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch

from .. import __version__
from ..errors import MediaError, cannot_write
from ..fileio import atomic_write, sha256_file
from ..progress import run
from ..sampling.lip_track import Take, has_new_lips
from ..video.frame_source import FrameSource, ImageBatch
from ..video.video_file import VideoFile

if TYPE_CHECKING:
    from ..compositing.settings import BlendSettings
    from ..sampling.lip_track import LipTrack, Provenance

RECORD_VERSION = 1
ROUTE = "local"
MARK = "AI-modified"


FOLDERS = re.compile(r"""(?<![\w.])([A-Za-z]:)?[/\\](?=\S)([^\s/\\'"]+[/\\])*""")
"""The folders at the beginning of a path in a sentence, up to a space or a quotation mark."""


LIBRARIES = ("torch", "av", "cv2", "diffusers", "mediapipe", "whisper")


Outcome = Literal["unfinished", "done", "failed", "cancelled"]


NODE_NAMES: Mapping[str, tuple[str, float]] = {
    "max_gap_frames": ("max_gap", 1),
    "max_yaw_degrees": ("max_yaw", 1),
    "hangover_s": ("hold_ms", 1000),
    "num_inference_steps": ("steps", 1),
    "guidance_scale": ("cfg", 1),
    "guidance_start": ("cfg_start_percent", 1),
    "guidance_end": ("cfg_end_percent", 1),
    "scheduler": ("sampler_name", 1),
    "cache_interval": ("deepcache_interval", 1),
    "length": ("length_mode", 1),
    "fps": ("output_fps", 1),
    "mode": ("paste_mode", 1),
    "feather": ("mask_feather", 100),
    "grow": ("mask_expand", 100),
}
"""Setting of the library -> name of the node input and the flag, and the factor that converts to their unit."""


UNFINISHED = "the run is still in progress, or was killed"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """An input file or output file of a run.

    role: use of the file, such as video, audio or unet.
    name: name of the file, without its folder.
    sha256: None for a model file.
    """

    role: str
    name: str
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input tensor of a run: its shape and dtype, without its content."""

    role: str
    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Numbers of output frames: all frames, frames with new lips, and unchanged frames."""

    total: int
    lips: int
    untouched: int


@dataclass(kw_only=True)
class RunRecord:
    """The data of a run. The run adds data to the record, and writes the record at the end.

    settings: settings with the names and the units of the node inputs.
    flags: flags of the command line. Empty for a run in ComfyUI.
    seconds: duration of each stage.
    takes: scores of all takes, speaker by speaker. Empty without scoring.
    notes: retries and warnings.
    """

    outcome: Outcome = "done"
    reason: str = ""
    model_version: str = ""
    model_files: list[FileDigest] = field(default_factory=list[FileDigest])
    inputs: list[FileDigest | TensorInfo] = field(default_factory=list[FileDigest | TensorInfo])
    output: FileDigest | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    flags: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None
    frames: FrameCounts | None = None
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    consent: str = ""
    takes: list[Take] = field(default_factory=list[Take])
    notes: list[str] = field(default_factory=list[str])

    def describe(self, speakers: Sequence[LipTrack], settings: BlendSettings) -> None:
        """Add the settings of one or more speakers, and of the compositor."""
        self.settings |= with_node_names(asdict(settings) | asdict(settings.edge))
        del self.settings["edge"]
        self.frames = _counted(speakers)
        origins = _origins(speakers)
        for number, origin in enumerate(origins, start=1):
            name = "lips" if len(origins) == 1 else f"lips {number}"
            self.settings[name] = {
                "model_version": origin.version,
                "seed": origin.seed,
                **with_node_names(origin.params),
            }
            self.seconds[name] = origin.seconds
        if origins:
            self.model_version = ", ".join(dict.fromkeys(origin.version for origin in origins))
            self.seed = origins[0].seed
            self.takes = [take for origin in origins for take in origin.takes]

    def add_inputs(self, speakers: Sequence[LipTrack], others: Iterable[FileDigest | TensorInfo]) -> None:
        """Add the inputs: the source, `others`, and the model files."""
        self.inputs.append(describe_source(speakers[0].face_track.source))
        self.inputs.extend(others)
        files = dict.fromkeys(chain(*(origin.files for origin in _origins(speakers))))
        self.model_files = [describe_weights(path) for path in files]

    def to_json(self) -> dict[str, Any]:
        """The record in the form of docs/record.schema.json."""
        return {
            "record": RECORD_VERSION,
            "written_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "mark": MARK,
            "route": ROUTE,
            **asdict(self),
            "software": software(),
        }


def with_node_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the library with the names of the nodes and the command line, at every depth."""
    renamed: dict[str, Any] = {}
    for field_name, value in settings.items():
        name, factor = NODE_NAMES.get(field_name, (field_name, 1))
        if isinstance(value, Mapping):
            renamed[name] = with_node_names(value)
        else:
            renamed[name] = value if factor == 1 else round(factor * value, 3)
    return renamed


class Recorder:
    """Writes the record of a run beside its output when the block begins, and again when the block ends.

    The first record says that the run is unfinished. This record remains if the run is killed.

    Args:
        output: the finished video. The record is `NAME.json` in the same folder. If this record or the video exists
            already, both stay unchanged until the new video is complete. Until then, the record is `NAME.failed.json`.
        record: the record. Complete the record inside the block.
        cancelled: exceptions that mean that the user stopped the run.

    Raises:
        MediaError: the record cannot be written. This error never hides the error of a failed run.
    """

    def __init__(
        self, output: Path, record: RunRecord, cancelled: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    ) -> None:
        self.record = record
        self._output = output
        self._cancelled = cancelled

    def __enter__(self) -> Recorder:
        self._began = monotonic()
        self.record.outcome, self.record.reason = "unfinished", UNFINISHED
        path = self._output.with_suffix(".json")
        try:
            # an empty file only reserves the name
            is_taken = path.exists() or (self._output.exists() and self._output.stat().st_size > 0)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._begun = self._output.with_suffix(".failed.json") if is_taken else path
        self._write(self._begun)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.record.seconds["this run"] = round(monotonic() - self._began, 3)
        if error is not None:
            self._write_failure(error)
            return
        try:
            if self._output.exists():
                self._replace_earlier_record()
            self.record.output = digest_file("output", self._output)
            self.record.outcome, self.record.reason = "done", ""
            self._write(self._begun)
        except BaseException as interruption:  # such as Ctrl-C during the hash of a large video
            self._write_failure(interruption)
            raise

    def _replace_earlier_record(self) -> None:
        """Give the first record of this run its final name. An earlier record describes a video that is replaced."""
        path = self._output.with_suffix(".json")
        try:
            self._begun = self._begun.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _write_failure(self, error: BaseException) -> None:
        self.record.outcome = "cancelled" if isinstance(error, self._cancelled) else "failed"
        self.record.reason = _without_folders(str(error) or type(error).__name__, self._output.parent)
        with suppress(MediaError):
            self._write(self._begun)

    def _write(self, path: Path) -> None:
        try:
            atomic_write(path, json.dumps(self.record.to_json(), indent=2).encode())
        except OSError as error:
            raise cannot_write(path, error) from error


def is_finished(
    output: Path,
    flags: Mapping[str, Any],
    model_files: Sequence[FileDigest],
    inputs: Callable[[], Iterable[FileDigest]],
) -> bool:
    """Whether the record beside `output` describes a finished run with these settings, model files and inputs.

    Args:
        inputs: returns the digests of the input files. The function calls `inputs` only if everything else is equal.
    """
    try:
        record = json.loads(output.with_suffix(".json").read_bytes())
        written = record["output"]["name"], record["output"]["size_bytes"]
        return (
            record["outcome"] == "done"
            and written == (output.name, output.stat().st_size)
            and record.get("flags") == flags
            and _by_role(record["model_files"]) == _by_role(map(asdict, model_files))
            and _by_role(record["inputs"]) == _by_role(map(asdict, inputs()))
        )
    except (OSError, ValueError, TypeError, KeyError):  # there is no record, or another file has its name
        return False


def _by_role(files: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((file["role"], file["name"], file["size_bytes"], file["sha256"] or "") for file in files)


@contextmanager
def _reading(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as cause:
        raise MediaError(
            f"{path} cannot be read for the run record ({cause.strerror}). Check that the file still exists."
        ) from cause


def _origins(speakers: Sequence[LipTrack]) -> list[Provenance]:
    return [lips.provenance for lips in speakers if lips.provenance is not None]


def _counted(speakers: Sequence[LipTrack]) -> FrameCounts:
    synced = has_new_lips(speakers, max(lips.timeline.frame_count for lips in speakers))
    return FrameCounts(len(synced), int(synced.sum()), int((~synced).sum()))


def tags(record: RunRecord) -> dict[str, str]:
    """A short form of the record, as tags of the video."""
    settings = record.settings | ({} if record.seed is None else {"seed": record.seed})
    tags_of_record = {
        MARK: "yes",
        "comment": f"Lips made with LatentSync {record.model_version}".rstrip() + f", {MARK}",
        "latentsync": json.dumps({"version": __version__, "model": record.model_version, **settings}),
    }
    return tags_of_record | ({"consent": record.consent} if record.consent else {})


def digest_file(role: str, path: Path) -> FileDigest:
    """The record entry of a file, with its hash.

    Raises:
        MediaError: the file cannot be read.
    """
    with _reading(path):
        return FileDigest(role, path.name, path.stat().st_size, run(sha256_file(path)))


def describe_source(source: FrameSource) -> FileDigest | TensorInfo:
    """The record entry of the original video or image batch."""
    if isinstance(source, ImageBatch):
        return describe_tensor("video", source.name, source.images)
    if isinstance(source, VideoFile):
        content = source.content
        return (
            digest_file("video", content) if isinstance(content, Path) else digest_bytes("video", source.name, content)
        )
    raise MediaError(f"{source.name} cannot be described in a run record. Turn save_record off.")


def describe_weights(path: Path) -> FileDigest:
    """The record entry of a model file, with its size but without a hash."""
    with _reading(path):
        return FileDigest("model", path.name, path.stat().st_size, None)


def digest_bytes(role: str, name: str, data: bytes) -> FileDigest:
    """The record entry of a file in memory."""
    return FileDigest(role, name, len(data), hashlib.sha256(data).hexdigest())


def describe_tensor(role: str, name: str, values: torch.Tensor) -> TensorInfo:
    """The record entry of a tensor, without reading its content."""
    return TensorInfo(role, name, tuple(values.shape), str(values.dtype).removeprefix("torch."))


def software() -> Mapping[str, str]:
    """Return the versions of this package, Python, and the libraries that the run loaded."""
    loaded = {name: sys.modules[name] for name in LIBRARIES if name in sys.modules}
    versions = {name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items()}
    return {"latentsync-nodes": __version__, "python": platform.python_version(), **versions}


def _without_folders(text: str, known: Path) -> str:
    """Remove folder paths from a message, so that only file names remain. `known` may contain any characters."""
    for folder in (known, Path.cwd(), Path.home()):
        text = text.replace(str(folder) + os.sep, "")
    return FOLDERS.sub("", text)
