"""`batch`: lip-sync many videos, and continue where an earlier batch stopped."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from io import StringIO
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from typing_extensions import override

from ..errors import DependencyError, LatentSyncError, StorageError, UsageError, cannot_write, reason_of
from ..output.formats import format_named
from . import options, run
from .failure import error_of

if TYPE_CHECKING:
    from ..batch import Job, Pool, Row
    from ..output.run_record import FileDigest

EXAMPLE = """example:
  latentsync batch jobs.jsonl --out dubbed --steps 20
  latentsync batch --videos talks --audios speech --out dubbed --devices cuda:0,cuda:1
"""
NO_MEDIA = {".json", ".jsonl", ".csv", ".txt", ".md"}
REPORT = "batch.json"


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    usage = "%(prog)s [JOBS] [--out FOLDER] [options]"
    parser = add("batch", usage=usage, help="lip-sync many videos, and continue a stopped batch", epilog=EXAMPLE)
    parser.set_defaults(command=batch)
    parser.add_argument(
        "jobs",
        type=Path,
        nargs="?",
        metavar="JOBS",
        help="a .jsonl or .csv file with one job a line: video, audio, output, and any flag of run by its name; "
        "{stem} in a file name stands for the name of the video without its extension",
    )
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="videos, in place of JOBS; needs --audios")
    parser.add_argument(
        "--audios", type=Path, metavar="FOLDER", help="recordings with the same names as the videos of --videos"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of the results; a job without output gets {stem} and the suffix of its format",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=1,
        metavar="COUNT",
        help="how often a failed job is tried again, after all others",
    )
    parser.add_argument(
        "--devices", metavar="LIST", help="one process for each of these devices, such as cuda:0,cuda:1 or cpu,cpu"
    )
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="a Ray cluster that does the work: HOST:PORT of its head, or local for this machine; needs Ray",
    )
    group.add_argument(
        "--cpus-per-worker",
        type=int,
        metavar="COUNT",
        help="CPUs of a worker of the cluster; default: a worker for each GPU, or for each CPU if there is no GPU",
    )
    parser.add_argument("--dry-run", action="store_true", help="check all jobs and print the plan")
    run.add_settings(parser)


def batch(args: argparse.Namespace) -> None:
    """Check all jobs, run those that are not finished, and print a table. A failed job does not end the batch."""
    if args.cluster is not None and args.devices is not None:
        raise UsageError('"--devices" and "--cluster" exclude each other. Remove one of them.')
    if args.retries < 0:
        raise UsageError(f'"--retries" cannot be {args.retries}. Choose 0 or a higher number.')
    if args.cpus_per_worker is not None and args.cpus_per_worker < 1:
        raise UsageError(f'"--cpus-per-worker" cannot be {args.cpus_per_worker}. Choose 1 or a higher number.')
    ledger = Ledger()
    report_path = (args.out or (args.jobs or args.videos or Path()).absolute().parent) / REPORT
    check_report_path(report_path)
    rows = plan(args, ledger, report_path)
    if args.dry_run:
        sys.stdout.write(table(rows))
        return
    with _open_pool(args, rows, ledger) as pool:
        _run_and_report(rows, pool, ledger, args.retries, report_path)
    failed = sum(row.state == "failed" for row in rows)
    if failed:
        raise LatentSyncError(
            f"{failed} of {len(rows)} jobs failed. Run the same command again after you correct them. It skips "
            "finished jobs."
        )


def _run_and_report(rows: Sequence[Row], pool: Pool, ledger: Ledger, retries: int, report_path: Path) -> None:
    from ..batch import run_jobs, seconds_left
    from ..progress import duration_text

    began = monotonic()
    try:
        for row in run_jobs(rows, pool, ledger.is_finished, retries):
            ended = sum(other.state not in ("waiting", "running") for other in rows)
            left = seconds_left(rows, monotonic() - began)
            time_left = "" if not left else f", about {duration_text(left)} left"
            detail = f" ({row.reason})" if row.reason else ""
            sys.stderr.write(f"{ended} of {len(rows)} jobs{time_left}. {row.job.name}: {row.state}{detail}\n")
    finally:
        sys.stdout.write(table(rows))
        sys.stdout.flush()
        _write_report(report_path, rows, monotonic() - began)


@contextmanager
def _open_pool(args: argparse.Namespace, rows: Sequence[Row], ledger: Ledger) -> Generator[Pool, None, None]:
    """The workers that the flags describe."""
    if args.cluster is not None:
        try:
            from ..cluster.actors import Actors
            from ..cluster.connection import connect
            from ..cluster.shared_files import check_nodes
        except ModuleNotFoundError as error:  # not in the registry, whose scan rejects code that sets the environment
            raise DependencyError(
                "This copy of LatentSync cannot use a cluster, because it comes from the ComfyUI registry. Use a copy "
                "from the repository."
            ) from error

        jobs = [row.job for row in rows if row.state == "waiting"]
        files = {path for job in jobs for role in run.INPUTS if (path := getattr(job.task, role)) is not None}
        files |= {path for job in jobs for path in ledger.model(job.task)[1]}
        folders = {job.output.parent for job in jobs}
        with connect(args.cluster):
            check_nodes(files, folders)
            yield Actors(run.new_worker, error_of, args.cpus_per_worker, folders)
    elif args.devices is not None:
        from .processes import Processes, check_devices

        devices = [name.strip() for name in args.devices.split(",")]
        check_devices(devices)
        yield Processes(devices)
    else:
        from ..batch import LocalWorker

        session = run.Session()
        yield LocalWorker(lambda task: run.make_video(task, session), error_of)


class Ledger:
    """Finds finished jobs by the run records beside the outputs."""

    def __init__(self) -> None:
        self._digests: dict[tuple[Path, int, int], FileDigest] = {}
        self._models: dict[tuple[Any, ...], tuple[str, tuple[Path, ...]]] = {}

    def is_finished(self, job: Job) -> bool:
        """Whether the output of a job was made from the same files with the same settings and model."""
        from ..output.run_record import describe_weights, is_finished

        task: argparse.Namespace = job.task
        model_files = [describe_weights(path) for path in self.model(task)[1]]
        return is_finished(job.output, run.recorded_flags(task), model_files, lambda: list(self._inputs(task)))

    def model(self, task: argparse.Namespace) -> tuple[str, tuple[Path, ...]]:
        """The version of the model of a job, and its files. Raises WeightsError if they are missing or wrong."""
        from ..weights import locate, miniature
        from .device import chosen_device

        if task.miniature:
            return task.version, miniature.files()
        key = _model_key(task)
        if key not in self._models:
            version = None if task.version == run.AUTO else task.version
            memory_bytes = locate.device_memory(chosen_device(task.device)) if version is None else None
            folders, needs_vae = locate.folders_in(task.models), task.vae is None
            files = locate.locate(folders, version, task.unet, memory_bytes=memory_bytes, needs_vae=needs_vae)
            paths = files.unet, files.whisper, task.vae or files.vae
            self._models[key] = files.spec.version, paths
        return self._models[key]

    def _inputs(self, task: argparse.Namespace) -> Iterator[FileDigest]:
        from ..output.run_record import digest_file

        for role in run.INPUTS:
            path: Path | None = getattr(task, role)
            if path is not None:
                state = path, path.stat().st_size, path.stat().st_mtime_ns
                if state not in self._digests:
                    self._digests[state] = digest_file(role, path)
                yield replace(self._digests[state], role=role)


@dataclass
class Plan:
    """Result of the check of all jobs. `mistakes` are sentences that begin with the name of a job."""

    rows: list[Row] = field(default_factory=list["Row"])
    mistakes: list[str] = field(default_factory=list[str])

    def add_mistake(self, name: str, error: object) -> None:
        self.mistakes.append(f"{name}: {error}")


def plan(args: argparse.Namespace, ledger: Ledger, report_path: Path) -> list[Row]:
    """All jobs, checked: settings, files, outputs and disk space. Finished ones are skipped.

    Raises:
        UsageError: with every mistake of every job.
    """
    from ..batch import Job, Row
    from ..output.result import least_bytes
    from ..progress import progress_bar

    checked = Plan()
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(args.out, error) from error
    tasks: list[tuple[str, argparse.Namespace]] = []
    for name, fields in read_jobs(args, checked):
        try:
            tasks.append((name, parse_job(fields, args)))
        except UsageError as error:
            checked.add_mistake(name, error)
    _check_outputs(tasks, report_path, checked)
    needed: dict[Path, int] = defaultdict(int)
    for name, task in progress_bar(tasks, "check", len(tasks)):
        missing = [path for role in run.INPUTS if (path := getattr(task, role)) is not None and not path.is_file()]
        for path in missing:
            checked.add_mistake(name, f"{path} does not exist, or is no file. Check its name.")
        try:
            run.check_flags(task)
            if missing:
                continue
            if args.cluster is not None and task.version == run.AUTO and not task.miniature:
                raise UsageError(
                    'With "--cluster", "version" cannot be auto, because the GPUs of the nodes can differ. '
                    "Set it to a version."
                )
            task.version, _ = ledger.model(task)  # all workers use it, also on a device with other VRAM
            job = Job(name, task, task.output, _model_key(task), run.faces_key(task), 0.0)
            if ledger.is_finished(job):
                checked.rows.append(Row(job, "skipped"))
                continue
            opened = run.open_inputs(task)
            needed[task.output.parent] += least_bytes(opened.source, opened.audio, options.output_format(task))
            checked.rows.append(Row(replace(job, seconds=float(opened.audio.duration_seconds))))
        except LatentSyncError as error:
            checked.add_mistake(name, error)
    _check_disk(needed, checked)
    if checked.mistakes:
        mistakes = "\n  ".join(checked.mistakes)
        raise UsageError(
            f"LatentSync found {len(checked.mistakes)} mistakes, so it started no job. Check these jobs:\n  {mistakes}"
        )
    return checked.rows


def _model_key(task: argparse.Namespace) -> tuple[Any, ...]:
    return tuple(getattr(task, name) for name in run.MODEL_FLAGS)


def _check_disk(needed: Mapping[Path, int], checked: Plan) -> None:
    """Whether all outputs of a folder fit together."""
    from ..output.result import check_free_space

    for folder, size in needed.items():
        try:
            check_free_space(folder, size)
        except StorageError as error:
            checked.add_mistake("All jobs", error)


def _check_outputs(tasks: Sequence[tuple[str, argparse.Namespace]], report_path: Path, checked: Plan) -> None:
    """Whether each job has an output of its own, and none is an input of another."""
    inputs = {path.resolve(): name for name, task in tasks for role in run.INPUTS if (path := getattr(task, role))}
    # the record of a video has its name with another suffix
    owners = {report_path.resolve().with_suffix(""): f"the report {REPORT}"}
    for name, task in tasks:
        output = task.output.resolve()
        owner = owners.setdefault(output.with_suffix(""), name)
        if owner != name:
            checked.add_mistake(
                name, f"{task.output} has the same name as the output of {owner}. Give each job an output of its own."
            )
        if output in inputs:
            checked.add_mistake(name, f"{task.output} is an input of {inputs[output]}. Choose another output.")


def read_jobs(args: argparse.Namespace, checked: Plan) -> list[tuple[str, Mapping[str, Any]]]:
    """Each job with its name and its fields. Invalid lines become mistakes.

    Raises:
        UsageError: there is no job, or the file or a folder cannot be read.
    """
    if args.jobs is not None and (args.videos is not None or args.audios is not None):
        raise UsageError('Choose JOBS, or "--videos" with "--audios", not both. Remove one of them.')
    try:
        if args.jobs is None:
            jobs = list(_pair_files(args, checked))
        else:
            text = args.jobs.read_text(encoding="utf-8-sig")
            reader = _read_csv if args.jobs.suffix.lower() == ".csv" else _read_json_lines
            jobs = list(reader(text, checked))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{args.jobs or args.videos} cannot be read ({reason_of(error)}). Check the jobs.") from error
    if not jobs and not checked.mistakes:
        raise UsageError(f"{args.jobs or args.videos} has no jobs. Provide one job a line, with a video and an audio.")
    return jobs


def _read_json_lines(text: str, checked: Plan) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # splitlines() would also split at characters that are valid inside JSON strings
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                fields = json.loads(line)
            except ValueError as error:
                checked.add_mistake(f"Line {number}", f"It is not JSON ({error}).")
                continue
            if isinstance(fields, dict):
                yield f"Line {number}", fields
            else:
                checked.add_mistake(f"Line {number}", 'It is not a JSON object, such as {"video": "talk.mp4"}.')


def _read_csv(text: str, checked: Plan) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True)
    for row in reader:
        name = f"Line {reader.line_num}"
        if None in row:
            checked.add_mistake(name, "It has more cells than the first line has names.")
            continue
        # an empty cell means the default
        yield name, {key: {"true": True, "false": False}.get(cell, cell) for key, cell in row.items() if cell}


def _pair_files(args: argparse.Namespace, checked: Plan) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A job for each video and the recording of the same name."""
    if args.videos is None or args.audios is None:
        raise UsageError('A batch needs a file of jobs, or "--videos" with "--audios". Provide one of them.')
    videos, audios = _media_files(args.videos, checked), _media_files(args.audios, checked)
    for stem in sorted(videos.keys() | audios.keys()):
        if stem in videos and stem in audios:
            yield videos[stem].name, {"video": str(videos[stem]), "audio": str(audios[stem])}
        elif stem in videos:
            checked.add_mistake(videos[stem].name, f"No recording in {args.audios} has the name {stem}.")
        else:
            checked.add_mistake(audios[stem].name, f"No video in {args.videos} has the name {stem}.")


def _media_files(folder: Path, checked: Plan) -> dict[str, Path]:
    """The files of a folder by their names without suffix."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in NO_MEDIA:
            if path.stem in files:
                checked.add_mistake(path.name, f"{files[path.stem].name} has the same name. Rename one of them.")
            files[path.stem] = path
    return files


class JobParser(argparse.ArgumentParser):
    """The parser of `run` for the fields of a job: a mistake is an exception."""

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"Wrong field ({message}). Use the flags of run.")


def parse_job(fields: Mapping[str, Any], args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of `run` for a job. Flags of the batch are the defaults of its jobs.

    Raises:
        UsageError: a field is missing, unknown or wrong.
    """
    parser = JobParser(prog="job", add_help=False, allow_abbrev=False)
    run.add_parser(lambda *_, **__: parser)
    known = vars(parser.parse_args(["video", "audio", "--output", "output"]))
    given = {name: value for name, value in fields.items() if value is not None}
    video, audio, output = (str(given.pop(name, "")) for name in ("video", "audio", "output"))
    if not video or not audio:
        raise UsageError('A job needs the fields "video" and "audio". Provide both.')
    if not output and args.out is None:
        raise UsageError('A job needs the field "output", or the batch the flag "--out". Provide one of them.')
    format = given.get("format") or args.format
    words = [f"--output={output or '{stem}' + (format_named(str(format)).suffix if format else '.mp4')}"]
    for name, value in given.items():
        flag = name.replace("_", "-")
        if value is True or value is False:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (str, int, float)):
            words.append(f"--{flag}={value}")
        else:
            raise UsageError(f'The field "{name}" is a list or an object. Use a text, a number, true or false.')
    defaults = {name: value for name, value in vars(args).items() if name in known and name != "command"}
    task = parser.parse_args([*words, "--", video, audio], argparse.Namespace(**defaults))
    for name, value in vars(task).items():
        if isinstance(value, Path):
            folder = args.out if name == "output" and args.out is not None else Path()
            setattr(task, name, (folder / str(value).replace("{stem}", task.video.stem)).absolute())
    if not task.save_record:
        raise UsageError("A batch needs the run records to know which jobs are finished. Remove no-save-record.")
    return task


def table(rows: Sequence[Row]) -> str:
    """The jobs as text, one a line, and how many there are of each state."""
    width = max((len(row.job.name) for row in rows), default=0)
    lines = [f"{row.state:9} {row.job.name:{width}} {row.job.output.name}  {row.reason}".rstrip() for row in rows]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in rows).items())
    return "\n".join([*lines, f"{len(rows)} jobs: {counts}", ""])


def _write_report(path: Path, rows: Sequence[Row], seconds: float) -> None:
    from ..fileio import atomic_write

    report = {
        "batch": 1,
        "written_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "counts": Counter(row.state for row in rows),
        "jobs": [
            {
                "job": row.job.name,
                "output": str(row.job.output),
                "state": row.state,
                "reason": row.reason,
                "tries": row.tries,
                "seconds": round(row.seconds, 3),
            }
            for row in rows
        ],
    }
    try:
        atomic_write(path, json.dumps(report, indent=2).encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def check_report_path(path: Path) -> None:
    """Raises UsageError for a file that is not the report of an earlier batch."""
    is_report = False
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        is_report = isinstance(content, dict) and "batch" in content
    if path.exists() and not is_report:
        raise UsageError(f"{path} exists and is not the report of a batch. Rename it, or choose another --out.")
