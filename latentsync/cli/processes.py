"""A pool of processes on this machine, one for each device."""

from __future__ import annotations

import os
import signal
from argparse import Namespace
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any

from ..batch import Finished, work
from ..errors import UsageError
from .failure import error_of
from .run import Session, make_video

CLOSE_SECONDS = 10  # time for a process to delete its temporary files


class Processes:
    """Workers that are processes. The pool replaces a process that ends unexpectedly.

    Args:
        devices: the device of each worker.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = devices
        self._workers = [self._spawn(device) for device in devices]
        self._busy: set[int] = set()

    def idle(self) -> Sequence[Hashable]:
        return [i for i in range(len(self._workers)) if i not in self._busy]

    def start(self, worker: Hashable, task: Any) -> None:  # noqa: ANN401 - of a Job
        assert isinstance(worker, int)
        self._busy.add(worker)
        with suppress(OSError):  # the idle process ended, and `wait` notices this
            self._workers[worker][1].send(task)

    def wait(self, seconds: float) -> Iterator[Finished]:
        ready = connection.wait([self._workers[i][1] for i in self._busy], seconds)
        for i in [i for i in self._busy if self._workers[i][1] in ready]:
            self._busy.discard(i)
            process, pipe = self._workers[i]
            try:
                finished: Finished = replace(pipe.recv(), worker=i)
            except (EOFError, OSError):
                process.join()
                text = f"The process on {self._devices[i]} ended with status {process.exitcode}."
                finished = Finished(i, text, is_done=False, lost=True)
            if finished.lost or finished.is_internal:  # a GPU can fail in every later call of the process
                process.kill()
                pipe.close()
                self._workers[i] = self._spawn(self._devices[i])
            yield finished

    def close(self) -> None:
        for process, _ in self._workers:
            process.terminate()
        for process, pipe in self._workers:
            process.join(CLOSE_SECONDS)
            process.kill()
            pipe.close()

    def _spawn(self, device: str) -> tuple[SpawnProcess, connection.Connection]:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, device, len(self._devices)), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _serve(pipe: connection.Connection, device: str, num_workers: int) -> None:
    """Run tasks until the parent process ends or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a shell sends Ctrl-C to all, but only the parent handles it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // num_workers))
    session = Session(progress=False)

    def make(task: Namespace) -> str:
        return make_video(Namespace(**{**vars(task), "device": device}), session)

    try:
        while True:
            pipe.send(work(device, pipe.recv(), make, error_of))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def check_devices(names: Sequence[str]) -> None:
    """Raise UsageError for a device that this machine does not have. The check does not use the devices."""
    import torch

    for name in names:
        try:
            device = torch.device(name)
            count = 1 if device.type == "cpu" else torch.get_device_module(device.type).device_count()
        except (RuntimeError, AttributeError):
            count, device = 0, None
        if device is None or (device.index or 0) >= count:
            raise UsageError(f'"--devices" cannot contain {name} on this machine. Choose devices that torch finds.')
