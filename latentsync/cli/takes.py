"""The takes of `run`: score the lips of several seeds, keep the best, and continue after a stopped run."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..errors import ScoreError

if TYPE_CHECKING:
    from ..output.run_record import FileDigest, RunRecord, TensorInfo
    from ..output.takes import Sample, TakeStore
    from ..pipeline import LipSyncPipeline
    from ..sampling.lip_track import LipTrack, Take
    from ..sampling.settings import SamplerSettings
    from ..scoring.score import Score

NOT_OF_TAKES = {"takes", "seed", "min_sync_confidence", "format", "crf", "consent", "background_gain_db", "ducking_db"}
"""Flags that do not change the lips of a seed, or their score."""
TAKES_SUFFIX = ".takes"
"""Suffix of the file beside the output that keeps the takes of a run until the run succeeds."""


def add_take_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the takes and their score."""
    group = parser.add_argument_group("score")
    group.add_argument(
        "--takes",
        type=int,
        default=1,
        metavar="COUNT",
        help="number of seeds to try. The first is --seed. The run keeps the result with the highest sync confidence. "
        "Needs the weights of SyncNet (latentsync download syncnet)",
    )
    group.add_argument(
        "--min-sync-confidence",
        type=float,
        metavar="NUMBER",
        help="fail and write no video if the sync confidence is lower. Real speech typically has 6 to 9",
    )


def is_scored(args: argparse.Namespace) -> bool:
    """Whether SyncNet scores the result."""
    return args.takes > 1 or args.min_sync_confidence is not None


def best_lips(
    args: argparse.Namespace,
    takes: Sequence[SamplerSettings],
    sample: Sample,
    score: Callable[[LipTrack], Score],
    store: TakeStore,
    record: RunRecord,
) -> LipTrack:
    """Sample and score each take, print and record the scores, and return the lips of the best take."""
    from ..output.takes import best_take, score_takes

    for take in score_takes(takes, sample, score, store):
        record.takes.append(take)
        sys.stdout.write(f"{take}\n")
        sys.stdout.flush()  # a log shows it while the next take is sampled
    check_confidence(record.takes, args.min_sync_confidence)
    return best_take(takes, sample, store)


def takes_key(record: RunRecord, inputs: Iterable[FileDigest | TensorInfo], pipeline: LipSyncPipeline) -> str:
    """A key that is equal for runs whose takes with the same seed are equal."""
    from .. import __version__
    from ..output.run_record import describe_weights

    flags = {name: value for name, value in record.flags.items() if name not in NOT_OF_TAKES}
    weights = [asdict(describe_weights(path)) for path in pipeline.files]
    content = [
        __version__,
        flags,
        [asdict(item) for item in inputs],
        weights,
        str(pipeline.dtype),
        pipeline.workers is not None,
    ]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


@contextmanager
def continued(store: TakeStore) -> Generator[None, None, None]:
    """Delete the file of the takes if the block succeeds. Otherwise, tell the user that the next run uses the file."""
    try:
        yield
    except BaseException:
        if store.scores and store.path is not None and store.path.exists():
            sys.stderr.write(
                f"note: The finished takes ({len(store.scores)}) are kept in {store.path}. The same command "
                "continues with them. Delete the file if you do not need them.\n"
            )
        raise
    store.delete()


def check_confidence(takes: Sequence[Take], limit: float | None) -> None:
    """Raise ScoreError if the best take has a confidence below the limit."""
    if limit is not None and max(take.confidence for take in takes) < limit:
        numbers = ", ".join(f"{take.confidence:.2f} (seed {take.seed})" for take in takes)
        raise ScoreError(
            f"The sync confidence is below --min-sync-confidence {limit}: {numbers}. The run wrote no video. "
            "Try other seeds with --takes, or lower the limit."
        )
