"""Interrupt a function before each bytecode instruction."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any


def interrupt_everywhere(action: Callable[[], object], *modules: ModuleType) -> Iterator[str]:
    """Call `action` again and again. Each call raises KeyboardInterrupt one instruction later than the call before.

    Only the instructions of `modules` count. The last call ends without an interrupt.

    Yields:
        After each interrupted call: the line of the instruction, such as "fileio.py:82".
    """
    files = {module.__file__ for module in modules}
    place = "nowhere"
    countdown = 0

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        nonlocal countdown, place
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            countdown -= 1
            if countdown < 0:
                place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
                raise KeyboardInterrupt  # Python stops tracing here, so the cleanup runs without another Ctrl-C
        return trace

    earlier, step = sys.gettrace(), 0
    while True:
        countdown = step
        sys.settrace(trace)
        try:
            action()
            return
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(earlier)
        yield place
        step += 1
