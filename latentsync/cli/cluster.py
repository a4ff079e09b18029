"""Flags and workers of a Ray cluster, for `run` and `batch`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DependencyError, UsageError
from .failure import error_of
from .model import AUTO

if TYPE_CHECKING:
    from ..batch import Make
    from ..cluster.actors import Actors
    from ..pipeline import LipSyncPipeline
    from ..sampling.sampler import Workers

CALLS_EACH = 2  # tasks of a worker that denoises windows: the current task and the next


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the workers of a cluster."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="a Ray cluster for the run: HOST:PORT of its head, or local for this machine. Needs Ray",
    )
    group.add_argument(
        "--cpus-per-worker",
        type=int,
        metavar="COUNT",
        help="CPUs of a worker of the cluster. The default is a worker for each GPU, or for each CPU if there is no "
        "GPU",
    )


def check_cluster_options(args: argparse.Namespace) -> None:
    """Raise UsageError if the number of CPUs is out of range."""
    if args.cpus_per_worker is not None and args.cpus_per_worker < 1:
        raise UsageError(f'"--cpus-per-worker" cannot be {args.cpus_per_worker}. Choose 1 or a higher number.')


def check_version(args: argparse.Namespace) -> None:
    """Raise UsageError if each node would choose its own version."""
    if args.version == AUTO and not args.miniature:
        raise UsageError(
            'With "--cluster", "version" cannot be auto, because the GPUs of the nodes can differ. Set "version" to '
            "1.5 or 1.6."
        )


@contextmanager
def open_actors(
    args: argparse.Namespace,
    new_worker: Callable[[], Make],
    files: Iterable[Path],
    folders: Iterable[Path] = (),
    calls_each: int = 1,
) -> Generator[Actors, None, None]:
    """Open the workers of the cluster that the flags select, until the block ends.

    Args:
        new_worker: creates the function that runs tasks on a worker.
        files: files that every node must be able to read.
        folders: folders of the outputs.
        calls_each: see `Actors`.

    Raises:
        UsageError, DependencyError, StorageError: the cluster cannot be used.
    """
    try:
        from ..cluster.actors import Actors
        from ..cluster.connection import connect
        from ..cluster.shared_files import check_nodes
    except ModuleNotFoundError as error:  # not in the registry, whose scan rejects code that sets the environment
        raise DependencyError(
            "This copy of LatentSync cannot use a cluster, because it comes from the ComfyUI registry. Use a copy "
            "from the repository."
        ) from error

    with connect(args.cluster):
        check_nodes(files, folders)
        yield Actors(new_worker, error_of, args.cpus_per_worker, folders, calls_each)


@contextmanager
def open_workers(
    args: argparse.Namespace, load: Callable[[], LipSyncPipeline], files: Iterable[Path]
) -> Generator[Workers, None, None]:
    """The cluster's workers for the windows of one video, while the block runs.

    Args:
        load: loads the networks of a worker from `files`.

    Raises the errors of `open_actors`.
    """
    with open_actors(args, partial(_new_worker, load), files, calls_each=CALLS_EACH) as actors, closing(actors):
        from ..cluster.windows import ClusterWorkers

        yield ClusterWorkers(actors)


def _new_worker(load: Callable[[], LipSyncPipeline]) -> Make:
    from ..cluster.windows import new_worker

    return new_worker(load)
