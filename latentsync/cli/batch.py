"""`batch`: lip-sync many videos, and continue where an earlier batch stopped."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import LatentSyncError, UsageError, cannot_write
from . import run
from .batch_plan import Ledger, plan, weights_of
from .cluster import add_cluster_options, check_cluster_options, open_actors
from .failure import error_of
from .outputs import is_json_with

if TYPE_CHECKING:
    from ..batch import Pool, Row

EXAMPLE = """example:
  latentsync batch jobs.jsonl --out dubbed --steps 20
  latentsync batch --videos talks --audios speech --out dubbed --devices cuda:0,cuda:1
"""
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
        help="a .jsonl or .csv file with one job per line. A job has the fields video, audio and output, and can have "
        "flags of run. {stem} in a file name stands for the name of the video without its extension",
    )
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="videos, in place of JOBS. Needs --audios")
    parser.add_argument(
        "--audios", type=Path, metavar="FOLDER", help="recordings with the same names as the videos of --videos"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder of the results. A job without output gets {stem} and the extension of its format",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=1,
        metavar="COUNT",
        help="how often the batch tries a failed job again, after all other jobs",
    )
    parser.add_argument(
        "--devices", metavar="LIST", help="one process for each of these devices, such as cuda:0,cuda:1 or cpu,cpu"
    )
    add_cluster_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="check all jobs and print the plan")
    run.add_settings(parser)


def batch(args: argparse.Namespace) -> None:
    """Check all jobs, run those that are not finished, and print a table. A failed job does not end the batch."""
    if args.cluster is not None and args.devices is not None:
        raise UsageError('"--devices" and "--cluster" exclude each other. Remove one of these flags.')
    if args.retries < 0:
        raise UsageError(f'"--retries" cannot be {args.retries}. Choose 0 or a higher number.')
    check_cluster_options(args)
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
            f"{failed} of {len(rows)} jobs failed. Run the same command again after you correct these jobs. The "
            "command skips finished jobs."
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
    """The workers for the flags."""
    if args.cluster is not None:
        jobs = [row.job for row in rows if row.state == "waiting"]
        files = {path for job in jobs for role in run.INPUTS if (path := getattr(job.task, role)) is not None}
        files |= {path for job in jobs for path in (*ledger.model(job.task)[1], *weights_of(job.task))}
        folders = {job.output.parent for job in jobs}
        with open_actors(args, run.new_worker, files, folders) as actors:
            yield actors
    elif args.devices is not None:
        from .processes import Processes, check_devices

        devices = [name.strip() for name in args.devices.split(",")]
        check_devices(devices)
        yield Processes(devices)
    else:
        from ..batch import LocalWorker

        session = run.Session()
        yield LocalWorker(lambda task: run.make_video(task, session), error_of)


def table(rows: Sequence[Row]) -> str:
    """A text with one job per line, and the number of jobs in each state."""
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
    """Raise UsageError for a file that is not the report of an earlier batch."""
    if path.exists() and not is_json_with(path, "batch"):
        raise UsageError(f"{path} exists and is not the report of a batch. Rename this file, or choose another --out.")
