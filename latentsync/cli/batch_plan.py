"""Check all jobs of a batch before the first job starts, and find the finished jobs."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LatentSyncError, StorageError, UsageError, cannot_write
from . import options, run
from .cluster import check_version
from .job_list import parse_job, read_jobs
from .model import locate_model, model_key
from .takes import is_scored

if TYPE_CHECKING:
    from ..batch import Job, Row
    from ..output.run_record import FileDigest


class Ledger:
    """Finds finished jobs by the run records beside the outputs."""

    def __init__(self) -> None:
        self._digests: dict[tuple[Path, int, int], FileDigest] = {}
        self._models: dict[tuple[Any, ...], tuple[str, tuple[Path, ...]]] = {}

    def is_finished(self, job: Job) -> bool:
        """Whether the output of a job exists and was made from the same files, settings and model."""
        from ..output.run_record import describe_weights, is_finished

        task: argparse.Namespace = job.task
        model_files = [describe_weights(path) for path in self.model(task)[1]]
        return is_finished(job.output, run.recorded_flags(task), model_files, lambda: list(self._inputs(task)))

    def model(self, task: argparse.Namespace) -> tuple[str, tuple[Path, ...]]:
        """The version of the model of a job, and its files. Raises WeightsError if a file is missing or wrong."""
        key = model_key(task)
        if key not in self._models:
            self._models[key] = locate_model(task)
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
    """Check settings, files, outputs and disk space of all jobs. Skip finished jobs.

    Raises:
        UsageError: a job has a mistake. The message lists all mistakes of all jobs.
    """
    from ..batch import Job, Row
    from ..output.output_path import videos_named
    from ..output.result import least_bytes
    from ..progress import progress_bar

    checked = Plan()
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(args.out, error) from error
    tasks: list[tuple[str, argparse.Namespace]] = []
    jobs = read_jobs(args, checked.add_mistake)
    if not jobs and not checked.mistakes:
        raise UsageError(f"{args.jobs or args.videos} has no jobs. Provide one job per line, with video and audio.")
    for name, fields in jobs:
        try:
            tasks.append((name, parse_job(fields, args)))
        except UsageError as error:
            checked.add_mistake(name, error)
    _check_outputs(tasks, report_path, checked)
    needed: dict[Path, int] = defaultdict(int)
    for name, task in progress_bar(tasks, "check", len(tasks)):
        missing = [path for role in run.INPUTS if (path := getattr(task, role)) is not None and not path.is_file()]
        for path in missing:
            checked.add_mistake(name, f"{path} does not exist, or is not a file. Check the path.")
        try:
            run.check_flags(task)
            if missing:
                continue
            if args.cluster is not None:
                check_version(task)
            weights_of(task)
            task.version, _ = ledger.model(task)  # all workers use it, also on a device with other VRAM
            replaces = videos_named(task.output)
            job = Job(name, task, task.output, model_key(task), run.faces_key(task), 0.0, replaces)
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


def weights_of(task: argparse.Namespace) -> list[Path]:
    """The files of a job's face detector and, if needed, of its segmenter and of SyncNet.

    Raises WeightsError if a file is missing.
    """
    from ..faces.segmenters import NO_SEGMENTER, segmenter_entry
    from ..weights import locate
    from ..weights.catalog import FACE_LANDMARKER, SYNCNET

    needed = [] if task.face_landmarks is not None else [FACE_LANDMARKER]
    needed += [segmenter_entry(task.occlusion).file] if task.occlusion != NO_SEGMENTER else []
    needed += [SYNCNET] if is_scored(task) else []
    return [locate.require(file, locate.folders_in(task.models)) for file in needed]


def _check_disk(needed: Mapping[Path, int], checked: Plan) -> None:
    """Check that all outputs of a folder together fit on the disk."""
    from ..output.result import check_free_space

    for folder, size in needed.items():
        try:
            check_free_space(folder, size)
        except StorageError as error:
            checked.add_mistake("All jobs", error)


def _check_outputs(tasks: Sequence[tuple[str, argparse.Namespace]], report_path: Path, checked: Plan) -> None:
    """Check that each job has its own output, and that no output is an input of another job."""
    inputs = {path.resolve(): name for name, task in tasks for role in run.INPUTS if (path := getattr(task, role))}
    # the record of a video has its name with another suffix
    owners = {report_path.resolve().with_suffix(""): f"the report {report_path.name}"}
    for name, task in tasks:
        output = task.output.resolve()
        owner = owners.setdefault(output.with_suffix(""), name)
        if owner != name:
            checked.add_mistake(
                name, f"{task.output} has the same name as the output of {owner}. Give each job an output of its own."
            )
        if output in inputs:
            checked.add_mistake(name, f"{task.output} is an input of {inputs[output]}. Choose another output.")
