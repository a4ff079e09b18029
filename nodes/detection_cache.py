"""A cache of detected people, so that several Face Prep nodes with the same source run detection only once."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import torch

from . import conversions

if TYPE_CHECKING:
    from comfy_api.input import VideoInput

    from ..latentsync.faces.identities import Identities, Identity
    from ..latentsync.video.frame_source import FrameSource

KEPT = 4  # sources. A minute of one face takes about 200 KB


class Found(NamedTuple):
    """The people in a source, and the warnings about the source."""

    people: Identities
    warnings: tuple[str, ...]


class DetectionCache:
    """The results of the last few searches. The cache is thread-safe, and keeps no source in memory."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def found(self, key: Hashable, source: FrameSource, search: Callable[[], Identities]) -> Found:
        """The cached result for `key`. Without a cached result, call `search` and cache its result."""
        from ..latentsync.faces.identities import Identities

        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return Found(Identities(source, kept.members, kept.cuts, kept.params), kept.warnings)
        people = search()
        found = Found(people, tuple(source.warnings()))
        with self._lock:
            self._kept[key] = _Kept(people.members, people.cuts, people.params, found.warnings)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


class _Kept(NamedTuple):
    members: tuple[Identity, ...]
    cuts: tuple[int, ...]
    params: Mapping[str, object]
    warnings: tuple[str, ...]


@cache
def shared_cache() -> DetectionCache:
    """The cache of this process. ComfyUI creates a new node for every run, so a node cannot hold the cache."""
    return DetectionCache()


def content_key(source: VideoInput | torch.Tensor) -> Hashable:
    """A key that is equal only for sources with the same pixels.

    For a file: its path, size, modification time and trim. For images in RAM: the object itself, which ComfyUI passes
    to every node. Hashing a minute of images takes longer than detecting the faces in them.
    """
    if isinstance(source, torch.Tensor) or conversions.why_not_streamed(source) is not None:
        return _Living(source)
    stream = source.get_stream_source()
    if not isinstance(stream, str | Path):
        return _Living(source)
    stat = Path(stream).stat()
    return str(stream), stat.st_size, stat.st_mtime_ns, conversions.trim_window(source)


class _Living:
    """Compares objects by identity, with weak references. A new object at a reused address is not equal."""

    def __init__(self, thing: object) -> None:
        self.thing = weakref.ref(thing)
        self._hash = id(thing)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self.thing()
        return isinstance(other, _Living) and mine is not None and mine is other.thing()
