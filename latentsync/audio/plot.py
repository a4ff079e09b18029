"""Plot of a waveform, its SNR and the detected speech."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..models.constants import MEL_RATE
from .driving_audio import DrivingAudio
from .vad import MAX_SNR_DB, VoiceActivity

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WIDTH_PX, WAVE_PX, SNR_PX, AXIS_PX = 1024, 128, 160, 20
TICKS_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600)
MAX_TICKS = 12
BACKGROUND, SPEECH, WAVE, SNR, THRESHOLD = "#ffffff", "#d8f0d8", "#506070", "#1060c0", "#c04020"


def plot_speech(speech: VoiceActivity, driving_audio: DrivingAudio) -> Image:
    """Draw the waveform above its SNR and the threshold, with the speech shaded.

    Args:
        speech: the detected speech of `driving_audio`.

    Returns:
        An image of 1024 x 308 pixels, for any duration.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH_PX, WAVE_PX + SNR_PX + AXIS_PX), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for x, column in enumerate(pixel_columns(speech.is_speech)):
        if column.any():
            draw.line([(x, 0), (x, WAVE_PX + SNR_PX)], fill=SPEECH)
    _draw_wave(draw, driving_audio.samples.numpy())
    _draw_snr(draw, speech)
    draw_time_axis(draw, len(speech.is_speech) / MEL_RATE, WAVE_PX + SNR_PX)
    return image


def pixel_columns(values: np.ndarray) -> list[np.ndarray]:
    """Split values into a group for each pixel column. Each group has at least one value."""
    edges = np.linspace(0, len(values), WIDTH_PX + 1).astype(int)
    return [values[start : max(stop, start + 1)] for start, stop in pairwise(edges)]


def _draw_wave(draw: ImageDraw, samples: np.ndarray) -> None:
    scale = (WAVE_PX / 2 - 4) / max(float(samples.max()), -float(samples.min()), 1e-9)
    for x, column in enumerate(pixel_columns(samples)):
        top, bottom = (WAVE_PX / 2 - float(extreme) * scale for extreme in (column.max(), column.min()))
        draw.line([(x, top), (x, bottom)], fill=WAVE)


def _draw_snr(draw: ImageDraw, speech: VoiceActivity) -> None:
    def y(snr_db: float) -> float:
        return WAVE_PX + SNR_PX - snr_db / MAX_SNR_DB * (SNR_PX - 8)

    draw.line([(x, y(float(column.max()))) for x, column in enumerate(pixel_columns(speech.snr_db))], fill=SNR)
    draw.line([(0, y(speech.threshold_db)), (WIDTH_PX, y(speech.threshold_db))], fill=THRESHOLD)
    draw.text((4, y(speech.threshold_db) - 12), f"{speech.threshold_db:g} dB", fill=THRESHOLD)
    summary = f"speech in {speech.is_speech.mean():.0%} of {len(speech.is_speech) / MEL_RATE:.1f} s"
    draw.text((WIDTH_PX - 4, 2), summary, fill=WAVE, anchor="ra")


def draw_time_axis(draw: ImageDraw, seconds: float, y: int) -> None:
    """Draw a time axis of `seconds` over the width of the picture, below `y`. The axis is AXIS_PX high."""
    spacing = next((tick for tick in TICKS_SECONDS if seconds / tick <= MAX_TICKS), TICKS_SECONDS[-1])
    for tick in np.arange(0, seconds, spacing):
        x = tick / seconds * WIDTH_PX
        draw.line([(x, y), (x, y + 4)], fill=WAVE)
        draw.text((x + 2, y + 4), f"{tick:g} s", fill=WAVE)
