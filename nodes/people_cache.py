"""Who was found in which source: several Face Preps of one graph, or of the next one, detect once."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from comfy_api.input_impl import VideoFromFile

if TYPE_CHECKING:
    import torch
    from comfy_api.input import VideoInput

    from ..latentsync.face.people import People, Person
    from ..latentsync.media import FrameSource

KEPT = 4  # sources; a minute of one face takes some 200 KB


class PeopleCache:
    """The latest few searches by what was searched, and how. Thread-safe, and keeps no source alive."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[tuple[Person, ...], tuple[int, ...]]] = OrderedDict()

    def people(self, key: Hashable, source: FrameSource, search: Callable[[], People]) -> People:
        """What is kept under `key`, as of `source`, or the result of `search`, kept from now on."""
        from ..latentsync.face.people import People

        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return People(source, *self._kept[key])
        found = search()
        with self._lock:
            self._kept[key] = found.persons, found.cuts
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


def content_key(source: VideoInput | torch.Tensor) -> Hashable:
    """What tells a source's pixels from any other's.

    A file goes by path, size and time of change, with the part of it that is shown. Pictures in memory go by
    the object, which ComfyUI hands to every node: hashing a minute of them takes longer than finding its faces.
    """
    stream = source.get_stream_source() if isinstance(source, VideoFromFile) else None
    if not isinstance(stream, str | Path):
        return _Living(source)
    window = getattr(source, "get_active_trim_window", lambda: None)()
    stat = Path(stream).stat()
    return str(stream), stat.st_size, stat.st_mtime_ns, window


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
