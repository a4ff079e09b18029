"""Faces are detected once per source, and never reused for another source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.output.video_writer import VideoWriter


@pytest.fixture(scope="session")
def cache(pack: ModuleType) -> ModuleType:
    return pack.detection_cache


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "a clip.mp4", rate=Fraction(25), height=32, width=32) as writer:
        for level in range(20):
            writer.write(np.full((32, 32, 3), 10 * level, np.uint8))
    return tmp_path / "a clip.mp4"


class Source:
    """A source with warnings about the frames that were read."""

    def __init__(self) -> None:
        self.searched = False

    def warnings(self) -> Iterator[str]:
        if self.searched:
            yield "2 frames are damaged"


class Search:
    """Finds no face, and counts its calls."""

    def __init__(self, pack: ModuleType, source: Source) -> None:
        self.pack, self.source, self.count = pack, source, 0

    def __call__(self) -> Any:
        from the_pack.latentsync.faces.identities import Identities

        self.count += 1
        self.source.searched = True
        return Identities(self.source, (), (3,))


def test_detection_cache_hit_repeats_result_and_warnings(pack: ModuleType, cache: ModuleType) -> None:
    kept, first, second = cache.DetectionCache(), Source(), Source()
    search, again = Search(pack, first), Search(pack, second)
    found, repeated = kept.found("key", first, search), kept.found("key", second, again)
    assert (search.count, again.count) == (1, 0)
    assert found.warnings == repeated.warnings == ("2 frames are damaged",)
    assert repeated.people.source is second
    assert repeated.people.cuts == (3,)


def test_detection_cache_evicts_the_oldest(pack: ModuleType, cache: ModuleType) -> None:
    kept, source = cache.DetectionCache(), Source()
    search = Search(pack, source)
    for key in range(cache.KEPT):
        kept.found(key, source, search)
    kept.found(0, source, search)
    kept.found("one more", source, search)
    kept.found(0, source, search)
    assert search.count == cache.KEPT + 1, "0 was used again, so 1 was the oldest"
    kept.found(1, source, search)
    assert search.count == cache.KEPT + 2


def test_detection_cache_key_is_content_and_trim(cache: ModuleType, video: Path) -> None:
    from comfy_api.input_impl import VideoFromFile

    whole = cache.content_key(VideoFromFile(str(video)))
    assert whole == cache.content_key(VideoFromFile(str(video)))
    part = cache.content_key(VideoFromFile(str(video)).as_trimmed(0.2, 0.4))
    assert part != whole
    assert part != cache.content_key(VideoFromFile(str(video)).as_trimmed(0.1, 0.4))
    os.utime(video, ns=(1, 1))
    assert cache.content_key(VideoFromFile(str(video))) != whole


def test_detection_cache_unknown_trim_is_not_the_whole(
    cache: ModuleType, video: Path, old_video: Callable[[Any], Any]
) -> None:
    from comfy_api.input_impl import VideoFromFile

    whole, part = old_video(VideoFromFile(str(video))), old_video(VideoFromFile(str(video))).as_trimmed(0.2, 0.4)
    assert cache.content_key(part) != cache.content_key(whole)
    assert cache.content_key(part) == cache.content_key(part)


def test_detection_cache_key_of_images_is_the_object(cache: ModuleType) -> None:
    one, other = torch.zeros(2, 4, 4, 3), torch.zeros(2, 4, 4, 3)
    key = cache.content_key(one)
    assert key == cache.content_key(one)
    assert key != cache.content_key(other)
    del one
    assert key != cache.content_key(other), "whatever now lies where the first one lay"
