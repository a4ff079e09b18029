"""Sound to what the lips hear: 16 kHz mono, Whisper states, one window of them per frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import AudioError, DependencyError
from .models.whisper import MEL_BINS, SEGMENT_MELS, WhisperEncoder
from .spec import AUDIO_POSITIONS
from .types import Waveform

SAMPLE_RATE = 16_000  # samples per second that Whisper hears
MEL_RATE = 100  # mel frames per second
SEGMENT_SECONDS = SEGMENT_MELS // MEL_RATE
STATE_RATE = MEL_RATE // 2  # positions per second: the encoder halves
BEFORE = AUDIO_POSITIONS // 2 - 1  # positions that a window starts before its centre
SHORTEST_SECONDS = Fraction(1, 25)  # one frame; Whisper's spectrogram needs 25 ms
SILENCE = 2.0**-15  # one step of 16-bit sound
RESAMPLED_AT_ONCE = 1 << 20  # samples


def embed(samples: Tensor, encoder: WhisperEncoder) -> Iterator[Tensor]:
    """The Whisper states of a recording, 30 s at a time.

    Follows upstream's whisper/audio2feature.py: the spectrogram is floored over the whole recording, and the last
    segment is padded with zeros after the logarithm.

    Args:
        samples: float32 (samples,) at 16 kHz, see `resample`.
        encoder: runs where its weights are.

    Yields:
        (positions, 5, 384) per segment, on the CPU, 50 positions a second; joined, they are the recording's.
    """
    weight = next(encoder.parameters())
    for segment in log_mel(samples).split(SEGMENT_MELS, dim=1):
        held = segment.shape[1]
        padded = F.pad(segment, (0, SEGMENT_MELS - held))[None].to(weight)
        with torch.no_grad():
            states = encoder(padded)[0, : held // 2]
        yield states.cpu()


def windows(states: Tensor, frames: Sequence[int], rate: Fraction) -> Tensor:
    """What each frame hears: ten positions around its instant, five states each.

    Args:
        states: (positions, 5, 384).
        frames: numbers of the frames in a clip.
        rate: of the clip, frames a second.

    Returns:
        (len(frames), 50, 384), position-major; beyond either end the outermost position is repeated.
    """
    centres = torch.tensor([int(frame * STATE_RATE / rate) for frame in frames], device=states.device)
    offsets = torch.arange(AUDIO_POSITIONS, device=states.device) - BEFORE
    positions = (centres[:, None] + offsets).clamp(0, len(states) - 1)
    return states[positions].flatten(1, 2)


def resample(waveform: Waveform) -> Tensor:
    """The recording as Whisper hears it: float32 (samples,), mono, 16 kHz.

    Raises:
        AudioError: it holds no sound.
    """
    check_sound(waveform)
    mono = waveform.samples.detach().cpu().float().mean(dim=0)
    if waveform.rate == SAMPLE_RATE:
        return mono
    return torch.cat(list(_resampled(mono, waveform.rate)))


def check_sound(waveform: Waveform) -> None:
    """Raises AudioError for a recording that is empty, silent throughout, or holds samples that are no numbers."""
    remedy = "Give a recording of the speech that the lips should follow."
    if waveform.duration_seconds < SHORTEST_SECONDS:
        raise AudioError(f"the audio holds only {waveform.samples.shape[1]} samples, less than one frame. {remedy}")
    wrong = int((~waveform.samples.isfinite()).sum())
    if wrong:
        raise AudioError(f"{wrong} samples of the audio are not numbers. {remedy}")
    if float(waveform.samples.abs().max()) < SILENCE:
        raise AudioError(f"the audio is silent throughout its {float(waveform.duration_seconds):.1f} s. {remedy}")


def log_mel(samples: Tensor) -> Tensor:
    """Whisper's log-mel spectrogram (80, frames), 100 frames a second, floored at 8 below its own peak."""
    try:
        from whisper.audio import log_mel_spectrogram
    except ImportError as error:
        raise DependencyError(
            f"openai-whisper cannot be imported ({error}): pip install -r requirements.txt"
        ) from error
    return log_mel_spectrogram(samples, n_mels=MEL_BINS)


def _resampled(mono: Tensor, rate: int) -> Iterator[Tensor]:
    """FFmpeg's resampler, as upstream's reader uses, fed piece by piece."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    for piece in mono.split(RESAMPLED_AT_ONCE):
        frame = av.AudioFrame.from_ndarray(piece[None].numpy(), format="flt", layout="mono")
        frame.sample_rate = rate
        for out in resampler.resample(frame):
            yield torch.from_numpy(out.to_ndarray()[0])
    for out in resampler.resample(None):
        yield torch.from_numpy(out.to_ndarray()[0])
