"""The best of several takes, with lips that only have a seed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.errors import UsageError
from latentsync.output.takes import TakeStore, best_take, score_takes
from latentsync.sampling.lip_track import LipTrack, Provenance, SampledLatents, Take
from latentsync.sampling.settings import SamplerSettings
from latentsync.scoring.score import Score
from latentsync.scoring.sync import SyncScore
from latentsync.video.timeline import build_timeline
from tests.support.sync_networks import brightness, sound, track_at
from tests.support.tiny_networks import vae

FRAMES = 10
CONFIDENCES = {5: 2.0, 6: 7.0, 7: 4.0, 8: 7.0}
"""Of the seeds. 6 and 8 are equal."""


def saved(content: object) -> bytes:
    """A file of torch.save."""
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Sampler:
    """Lips whose latents are the seed. Remembers the seeds that it sampled."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self._levels = brightness(FRAMES)
        self._vae = vae()

    def __call__(self, settings: SamplerSettings, *, sampled: SampledLatents | None = None) -> LipTrack:
        track, waveform = track_at(self._levels), sound(self._levels)
        if sampled is None:
            self.seeds.append(settings.seed)
            latents = torch.full((FRAMES, 4, 2, 2), settings.seed, dtype=torch.float16)
            sampled = SampledLatents(settings.seed, 1.0, latents, np.arange(FRAMES))
        timeline = build_timeline(track.source, waveform.duration_seconds, track.source.rate, "shortest")
        provenance = Provenance("1.5", (), settings.seed, {}, sampled.seconds)
        return LipTrack(
            track, timeline, sampled.latents, sampled.latent_index, waveform, self._vae, provenance=provenance
        )


def score(lips: LipTrack) -> Score:
    distances = np.full((100, 31), 10.0, np.float32)
    distances[:, 15] -= CONFIDENCES[int(lips.latents[0, 0, 0, 0])]
    return Score("clip.mp4", SyncScore(distances))


def choose(sampler: Sampler, seed: int, count: int, store: TakeStore) -> tuple[list[Take], LipTrack]:
    settings = SamplerSettings(seed=seed).takes(count)
    return list(score_takes(settings, sampler, score, store)), best_take(settings, sampler, store)


def test_takes_the_best_wins_and_of_equal_ones_the_first() -> None:
    sampler = Sampler()
    scores, lips = choose(sampler, 5, 4, TakeStore())
    assert {take.seed: take.confidence for take in scores} == CONFIDENCES
    assert sampler.seeds == [5, 6, 7, 8]
    assert float(lips.latents[0, 0, 0, 0]) == 6
    assert lips.provenance is not None
    assert lips.provenance.seed == 6
    assert lips.provenance.takes == tuple(scores)


def test_takes_of_a_file_are_not_made_again(tmp_path: Path) -> None:
    path, first, second = tmp_path / "out.takes", Sampler(), Sampler()
    scores, lips = choose(first, 5, 2, TakeStore.open(path, "key"))
    more, again = choose(second, 5, 3, TakeStore.open(path, "key"))
    assert second.seeds == [7]
    assert more[:2] == scores
    assert torch.equal(again.latents, lips.latents)
    third = Sampler()
    choose(third, 5, 3, TakeStore.open(path, "other settings"))
    assert third.seeds == [5, 6, 7]


def test_takes_sample_the_best_again_if_not_kept() -> None:
    """The store keeps the latents of its best take alone, which is not among these."""
    store, sampler = TakeStore(), Sampler()
    choose(sampler, 5, 3, store)
    _, lips = choose(sampler, 7, 1, store)
    assert sampler.seeds == [5, 6, 7, 7]
    assert float(lips.latents[0, 0, 0, 0]) == 7


def test_takes_that_fail_keep_those_before(tmp_path: Path) -> None:
    path = tmp_path / "out.takes"

    def cancelled(lips: LipTrack) -> Score:
        if int(lips.latents[0, 0, 0, 0]) == 7:
            raise KeyboardInterrupt
        return score(lips)

    settings = SamplerSettings(seed=5).takes(4)
    with pytest.raises(KeyboardInterrupt):
        list(score_takes(settings, Sampler(), cancelled, TakeStore.open(path, "key")))
    assert sorted(TakeStore.open(path, "key").scores) == [5, 6]


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04damaged", saved(torch.zeros(2)), saved(Path("a"))])
def test_takes_refuse_another_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.takes"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"out\.takes does not contain takes of LatentSync"):
        TakeStore.open(path, "key")
    assert path.read_bytes() == content
