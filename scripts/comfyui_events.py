"""The websocket messages of a ComfyUI server, in order."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


class ComfyUIError(RuntimeError):
    """ComfyUI did not start, died, or did not answer in time."""


@dataclass(frozen=True)
class Event:
    """One websocket message. `seconds` is time.monotonic() at its arrival."""

    type: str
    data: dict[str, Any]
    seconds: float

    @property
    def prompt_id(self) -> str | None:
        return self.data.get("prompt_id")


PREVIEW_IMAGE, TEXT = 1, 3


def binary_event(message: bytes) -> Event:
    """A binary message: "preview" with an `image` (a JPEG or PNG file), or "text" with a `node` and its `text`."""
    kind, length = struct.unpack_from(">II", message)
    content, now = message[8:], time.monotonic()
    if kind == TEXT:
        return Event("text", {"node": content[:length].decode(), "text": content[length:].decode()}, now)
    if kind == PREVIEW_IMAGE:  # the second number is the file format
        return Event("preview", {"image": content}, now)
    return Event(f"binary {kind}", {}, now)


class EventLog:
    """All messages to this client in order."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        """The messages so far."""
        return iter(list(self._events))

    def of(self, prompt_id: str, kind: str | None = None) -> list[Event]:
        """The messages so far of one prompt."""
        return [event for event in self if event.prompt_id == prompt_id and kind in (None, event.type)]

    def follow(self, timeout_seconds: float, start: int = 0) -> Iterator[Event]:
        """Events from number `start` on. Waits for new ones, and ends when the connection closes.

        Raises ComfyUIError if `timeout_seconds` have passed since the call.
        """
        deadline = time.monotonic() + timeout_seconds
        index = start
        while True:
            if not self._await_more_than(index, deadline - time.monotonic()):
                raise ComfyUIError(f"ComfyUI sent nothing for {timeout_seconds:g} s.")
            if index >= len(self._events):
                return
            yield self._events[index]
            index += 1

    def wait_for(self, matches: Callable[[Event], bool], timeout_seconds: float = 60.0, start: int = 0) -> Event:
        """The first event from number `start` on that `matches`. Raises ComfyUIError if there is none."""
        for event in self.follow(timeout_seconds, start):
            if matches(event):
                return event
        raise ComfyUIError("ComfyUI closed the connection.")

    def _await_more_than(self, count: int, timeout_seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self._events) > count or self._closed, max(0.0, timeout_seconds))

    def append(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
