"""Choose the best of several takes. Each take samples the same lips from another seed, and SyncNet scores each take.

Sampling takes minutes to hours. A `TakeStore` therefore keeps the scores of all takes and the latents of the best take,
so that a canceled or failed run can continue where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import LatentSyncError, StorageError, UsageError, reason_of
from ..fileio import atomic_write
from ..sampling.lip_track import LipTrack, SampledLatents, Take
from ..sampling.settings import SamplerSettings
from ..scoring.score import Score
from ..scoring.sync import FRAME_MS
from ..tensor_buffer import TensorBuffer

COPIED_ROWS = 1024  # rows of a stored take that are copied at once


class Sample(Protocol):
    """`LipSyncPipeline.sample` of one person and one recording."""

    def __call__(self, settings: SamplerSettings, *, sampled: SampledLatents | None = None) -> LipTrack: ...


@dataclass
class TakeStore:
    """The scores of takes that differ only in their seed, and the latents of the best take.

    scores: score of each seed.
    best: the latents of the take with the highest confidence.
    path: file that stores the scores and the latents. None: the store is only in RAM.
    key: identifies everything except the seed that changes the takes. The file contains the same key.
    """

    scores: dict[int, Take] = field(default_factory=dict[int, Take])
    best: SampledLatents | None = None
    path: Path | None = None
    key: str = ""

    @classmethod
    def open(cls, path: Path, key: str) -> TakeStore:
        """Read the takes from a file. The store is empty if there is no file, or if the file has another key.

        Raises:
            UsageError: another program made the file, or it is damaged.
        """
        if not path.exists():
            return cls(path=path, key=key)
        try:
            # mapped, not loaded: an hour at 512 pixels has 3 GB
            content: dict[str, Any] = dict(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
            if content["key"] != key:
                return cls(path=path, key=key)
            takes = [Take(**take) for take in content["takes"]]
            latents = content["latents"]
            # a copy, because Windows does not delete a mapped file
            with TensorBuffer(f"the latents of {path.name}", len(latents)) as buffer:
                for rows in latents.split(COPIED_ROWS):
                    buffer.append(rows)
                best = SampledLatents(
                    content["seed"], content["seconds"], buffer.tensor(), content["index"].clone().numpy()
                )
        except LatentSyncError:  # the disk is full
            raise
        except Exception as error:  # torch raises many kinds for a file of another program
            raise UsageError(
                f"{path} does not contain takes of LatentSync, or is damaged, so LatentSync does not replace it. "
                "Delete this file, or choose another output."
            ) from error
        return cls({take.seed: take for take in takes}, best, path, key)

    def add(self, take: Take, lips: LipTrack) -> None:
        """Keep a scored take.

        Raises:
            StorageError: the file cannot be written.
        """
        self.scores[take.seed] = take
        if best_of(self.scores.values()) == take:
            self.best = lips.sampled(take.seed)
        if self.path is None or self.best is None:
            return
        content = {
            "key": self.key,
            "takes": [asdict(take) for take in self.scores.values()],
            "seed": self.best.seed,
            "seconds": self.best.seconds,
            "latents": self.best.latents,
            "index": torch.from_numpy(self.best.latent_index),
        }
        try:
            atomic_write(self.path, lambda path: torch.save(content, path))
        except (OSError, RuntimeError) as error:  # torch turns a full disk into a RuntimeError
            reason = reason_of(error) if isinstance(error, OSError) else str(error).partition("\n")[0]
            raise StorageError(
                f"{self.path} cannot be written ({reason}). Check the folder, the permissions and the free space."
            ) from error

    def delete(self) -> None:
        """Delete the file. Call this when the run is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def best_of(takes: Iterable[Take]) -> Take:
    """The take with the highest confidence. The first such take if several takes are equal."""
    return max(takes, key=lambda take: take.confidence)


def scored_take(seed: int, score: Score) -> Take:
    """A take with rounded scores, for the comparison and for the user."""
    trusted = score.sync is not None and score.sync.is_trusted
    return Take(seed, round(score.confidence, 3), round(score.distance, 3), FRAME_MS * score.offset_frames, trusted)


def score_takes(
    takes: Sequence[SamplerSettings], sample: Sample, score: Callable[[LipTrack], Score], store: TakeStore
) -> Iterator[Take]:
    """Sample and score each take that is not in the store, and yield the scores of all in order.

    Raises:
        LatentSyncError: sampling or scoring failed. The store contains all earlier takes.
    """
    for settings in takes:
        if settings.seed not in store.scores:
            lips = sample(settings)
            store.add(scored_take(settings.seed, score(lips)), lips)
            del lips  # free the latents before the next take is sampled
        yield store.scores[settings.seed]


def best_take(takes: Sequence[SamplerSettings], sample: Sample, store: TakeStore) -> LipTrack:
    """The lips of the take with the highest confidence. The store must contain the scores of all takes.

    If another take in the store has a higher confidence, the store has only the latents of that take. The function then
    samples the lips again.
    """
    scores = tuple(store.scores[settings.seed] for settings in takes)
    seed = best_of(scores).seed
    settings = next(settings for settings in takes if settings.seed == seed)
    sampled = store.best if store.best is not None and store.best.seed == seed else None
    lips = sample(settings, sampled=sampled)
    return lips if lips.provenance is None else replace(lips, provenance=replace(lips.provenance, takes=scores))
