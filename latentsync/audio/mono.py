"""The mean of all channels of a recording at 16 kHz, in a temporary file. Callers read the file in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Protocol
from weakref import finalize

import torch
from torch import Tensor

from ..errors import StorageError, reason_of
from .waveform import BLOCK_SAMPLES, SAMPLE_RATE, Waveform, checked_blocks, swresample

MEMORY_BYTES = 16 * 2**20  # of samples that stay in RAM: four minutes
SAMPLE_BYTES = torch.float32.itemsize


class Samples(Protocol):
    """float32 (n,), 16 kHz, -1 to 1: a tensor, or `StoredSamples`."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> Tensor: ...
    def split(self, size: int, /) -> Iterable[Tensor]: ...


class StoredSamples:
    """Samples that callers read in parts. More than 16 MB are in an anonymous temporary file until the object is
    deleted.

    Args:
        blocks: consecutive parts of the samples, each float32 (n,).

    Raises:
        StorageError: the system's temporary folder is full or not writable.
    """

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self._file = SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - the finalizer closes it
        finalize(self, self._file.close)
        self._count = 0
        for block in blocks:
            self._append(block)

    def _append(self, block: Tensor) -> None:
        try:
            self._file.seek(SAMPLE_BYTES * self._count)
            self._file.write(block.contiguous().view(torch.uint8).numpy().tobytes())
        except OSError as cause:
            folder = gettempdir()
            raise StorageError(
                f"{folder} cannot store the sound at 16 kHz ({reason_of(cause)}). Free 230 MB in this folder for "
                "each hour of sound, and check that it is writable."
            ) from cause
        self._count += len(block)

    def fit(self, count: int) -> None:
        """Cut the samples to `count`, or add silence."""
        if count > self._count:
            self._append(torch.zeros(count - self._count))
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(self._count)
        count = max(stop - start, 0)
        self._file.seek(SAMPLE_BYTES * start)
        content = bytearray(self._file.read(SAMPLE_BYTES * count))
        return torch.frombuffer(content, dtype=torch.float32) if count else torch.zeros(0)

    def split(self, size: int) -> Iterator[Tensor]:
        """Consecutive parts of `size` samples. The last part can be shorter."""
        return (self[start : start + size] for start in range(0, self._count, size))


@dataclass(frozen=True, eq=False)
class MonoSound:
    """The mean of all channels of a recording.

    samples: float32 (n,), 16 kHz, -1 to 1.
    duration_seconds: duration of the recording in its original sample rate.
    warnings: sentences for the user about the audio file.
    """

    samples: Samples
    duration_seconds: Fraction
    warnings: tuple[str, ...] = ()


def mono_sound(recording: Waveform | MonoSound, name: str) -> MonoSound:
    """Check a recording, and mix it down. Return a `MonoSound` unchanged.

    Args:
        name: name of the input in errors.

    Raises:
        AudioError: see `waveform.check_samples`.
        StorageError: see `StoredSamples`.
    """
    if isinstance(recording, MonoSound):
        return recording
    sound = mono_blocks(recording.samples.split(BLOCK_SAMPLES, dim=1), recording.rate, name)
    return replace(sound, warnings=recording.warnings)


def mono_blocks(blocks: Iterable[Tensor], rate: int, name: str) -> MonoSound:
    """Check and mix down a recording in parts, without the whole recording in RAM.

    Args:
        blocks: consecutive parts of the recording, each float32 (channels, n).
        rate: samples per second.
        name: name of the input in errors.

    Raises the errors of `mono_sound`.
    """
    count = 0

    def mixed() -> Iterator[Tensor]:
        nonlocal count
        for block in checked_blocks(blocks, rate, name):
            count += block.shape[1]
            yield block.cpu().float().mean(dim=0)

    samples = StoredSamples(mixed() if rate == SAMPLE_RATE else swresample(mixed(), rate, SAMPLE_RATE))
    seconds = Fraction(count, rate)
    samples.fit(int(seconds * SAMPLE_RATE))
    return MonoSound(samples, seconds)
