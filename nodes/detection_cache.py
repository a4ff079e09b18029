"""Who was found in which source: several Face Preps of one graph, or of the next one, detect once."""

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

KEPT = 4  # sources; a minute of one face takes some 200 KB


class Found(NamedTuple):
    """Who is in a source, and what was remarked on it while it was searched."""

    people: Identities
    warnings: tuple[str, ...]


class DetectionCache:
    """The latest few searches by what was searched, and how. Thread-safe, and keeps no source alive."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def found(self, key: Hashable, source: FrameSource, search: Callable[[], Identities]) -> Found:
        """What is kept under `key`, as of `source`, or the result of `search` in it, kept from now on."""
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
    """The one of this process: ComfyUI makes a node anew for every run, and every Face Prep must see it."""
    return DetectionCache()


def content_key(source: VideoInput | torch.Tensor) -> Hashable:
    """What tells a source's pixels from any other's.

    A file goes by path, size and time of change, with the part of it that is shown. Pictures in memory go by
    the object, which ComfyUI hands to every node: hashing a minute of them takes longer than finding its faces.
    """
    if isinstance(source, torch.Tensor) or conversions.why_not_streamed(source) is not None:
        return _Living(source)
    stream = source.get_stream_source()
    if not isinstance(stream, str | Path):
        return _Living(source)
    stat = Path(stream).stat()
    return str(stream), stat.st_size, stat.st_mtime_ns, conversions.trim_window(source)


class _Living:
    """An object by identity, without keeping it: the address of a dead one may be used again, and is not it."""

    def __init__(self, thing: object) -> None:
        self.thing = weakref.ref(thing)
        self._hash = id(thing)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self.thing()
        return isinstance(other, _Living) and mine is not None and mine is other.thing()
