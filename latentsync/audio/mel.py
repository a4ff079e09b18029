"""Whisper's spectrogram, in pieces of any length: the numbers are those of the whole recording at once.

Follows whisper/audio.py's `log_mel_spectrogram`. Its floor lies 8 below the loudest value of the whole recording, so
the recording is gone through twice: for its peak, and for its spectrogram.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..errors import cannot_import
from ..models.constants import MEL_RATE
from ..models.whisper import MEL_BINS, SEGMENT_MELS
from .waveform import SAMPLE_RATE

HOP_SAMPLES = SAMPLE_RATE // MEL_RATE


FFT_SAMPLES = 400


DYNAMIC_RANGE = 8.0  # of log10 of power: 80 dB


QUIETEST = 1e-10  # power


BLOCK_MELS = SEGMENT_MELS


def mel_power(samples: Iterable[Tensor]) -> Iterator[Tensor]:
    """Mel power spectrogram of sound at 16 kHz, 100 frames a second.

    Args:
        samples: float32 (n,) pieces of a recording of at least 25 ms.

    Yields:
        (80, 3000), the last one shorter; together samples // 160 frames.
    """
    filters, window = _filters(), torch.hann_window(FFT_SAMPLES)
    spectra = (
        filters
        @ torch.stft(held, FFT_SAMPLES, HOP_SAMPLES, window=window, center=False, return_complex=True).abs() ** 2
        for held in _overlapping(_mirrored(samples))
    )
    yield from blocks(spectra, BLOCK_MELS)


def log_peak(power: Tensor) -> float:
    """log10 of the largest of some mel powers."""
    return float(power.max().clamp_min(QUIETEST).log10())


def log_mel(power: Tensor, peak: float) -> Tensor:
    """What Whisper is given, of mel power (80, n) in a recording whose loudest is `peak`."""
    return (power.clamp_min(QUIETEST).log10().clamp_min(peak - DYNAMIC_RANGE) + 4) / 4


def blocks(pieces: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same columns, `size` at a time; fewer in the last block."""
    held: Tensor | None = None
    for piece in pieces:
        held = piece if held is None else torch.cat((held, piece), dim=1)
        while held.shape[1] >= size:
            yield held[:, :size]
            held = held[:, size:]
    if held is not None and held.shape[1]:
        yield held


def _overlapping(pieces: Iterator[Tensor]) -> Iterator[Tensor]:
    """Stretches of samples that begin and end on whole frames. Whisper leaves the very last frame out."""
    held = torch.empty(0)
    for piece in pieces:
        held = torch.cat((held, piece))
        frames = (len(held) - FFT_SAMPLES) // HOP_SAMPLES  # one less than there are: it may be the last
        if frames > 0:
            yield held[: FFT_SAMPLES + (frames - 1) * HOP_SAMPLES]
            held = held[frames * HOP_SAMPLES :]


def _mirrored(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """The recording with half a spectrum's length of itself mirrored at either end."""
    half = FFT_SAMPLES // 2
    last = torch.empty(0)
    begun = False
    for piece in pieces:
        joined = torch.cat((last, piece))
        if not begun and len(joined) > half:
            yield joined[1 : half + 1].flip(0)
            yield joined
            begun = True
        elif begun:
            yield piece
        last = joined[-half - 1 :] if begun else joined
    yield last[-half - 1 : -1].flip(0)


def _filters() -> Tensor:
    try:
        from whisper.audio import mel_filters
    except ImportError as error:
        raise cannot_import("Whisper", "openai-whisper>=20240930", error) from error
    return mel_filters(torch.device("cpu"), MEL_BINS)
