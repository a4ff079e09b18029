"""Log-mel spectrogram of any part of a recording.

The values equal `log_mel_spectrogram` of whisper/audio.py for the whole recording. Whisper limits every log10 power to
at least the peak of the whole recording minus 8. `log_peak` finds this peak in a first pass, and `log_mel` uses it in a
second pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import cannot_import
from ..models.constants import MEL_RATE
from ..models.whisper import MEL_BINS
from .mono import Samples
from .waveform import SAMPLE_RATE

HOP_SAMPLES = SAMPLE_RATE // MEL_RATE
FFT_SAMPLES = 400
DYNAMIC_RANGE = 8.0  # in log10 of power: 80 dB
MIN_POWER = 1e-10


def mel_power(samples: Samples, start: int = 0, stop: int | None = None) -> Tensor:
    """Mel power spectrogram of the mel frames `start` to `stop` of a recording, at 100 frames per second.

    Args:
        samples: float32 (n,) at 16 kHz, the whole recording, at least 25 ms.
        start, stop: half-open range of mel frames. A range that starts at 0 must contain at least two mel frames.
            Default: all n // 160 mel frames.

    Returns:
        float32 (80, stop - start).

    Raises:
        DependencyError: openai-whisper cannot be imported.
    """
    try:
        from whisper.audio import mel_filters
    except ImportError as error:
        raise cannot_import("Whisper", "openai-whisper>=20240930", error) from error
    stop = num_mels(samples) if stop is None else stop
    first, end = start * HOP_SAMPLES - FFT_SAMPLES // 2, (stop - 1) * HOP_SAMPLES + FFT_SAMPLES // 2
    padding = max(-first, 0), max(end - len(samples), 0)
    block = F.pad(samples[max(first, 0) : end][None], padding, mode="reflect")[0]
    window = torch.hann_window(FFT_SAMPLES)
    spectrum = torch.stft(block, FFT_SAMPLES, HOP_SAMPLES, window=window, center=False, return_complex=True)
    return mel_filters(torch.device("cpu"), MEL_BINS) @ spectrum.abs() ** 2


def num_mels(samples: Samples) -> int:
    """Number of mel frames in a recording at 16 kHz."""
    return len(samples) // HOP_SAMPLES


def log_peak(power: Tensor) -> float:
    """log10 of the largest mel power."""
    return float(power.max().clamp_min(MIN_POWER).log10())


def log_mel(power: Tensor, peak: float) -> Tensor:
    """Convert mel power (80, n) to the input of Whisper, with the same shape.

    Args:
        peak: `log_peak` of the whole recording.
    """
    return (power.clamp_min(MIN_POWER).log10().clamp_min(peak - DYNAMIC_RANGE) + 4) / 4
