"""The speech curve as a picture: what was heard, how far it stands out, and when the lips would be gated."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..models.constants import MEL_RATE
from .features import DrivingAudio
from .vad import TALLEST_DB, VoiceActivity
from .waveform import SAMPLE_RATE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


WIDTH_PX, WAVE_PX, LEVEL_PX, FOOT_PX = 1024, 128, 160, 20


TICKS_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600)


TICKS_AT_MOST = 12


PAPER, SPOKEN, INK, CURVE, LINE = "#ffffff", "#d8f0d8", "#506070", "#1060c0", "#c04020"


def plot_speech(speech: VoiceActivity, heard: DrivingAudio) -> Image:
    """Above the waveform, below it the speech level with its threshold; the time of speech is shaded.

    Args:
        speech: the curve.
        heard: what it was measured on.

    Returns:
        A picture of 1024 x 308 pixels, whatever the length.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH_PX, WAVE_PX + LEVEL_PX + FOOT_PX), PAPER)
    pen = ImageDraw.Draw(picture)
    columns = np.linspace(0, len(speech.spoken), WIDTH_PX + 1).astype(int)
    for x, (first, end) in enumerate(pairwise(columns)):
        if speech.spoken[first : max(end, first + 1)].any():
            pen.line([(x, 0), (x, WAVE_PX + LEVEL_PX)], fill=SPOKEN)
    _draw_wave(pen, heard)
    _draw_level(pen, speech, columns)
    _draw_time(pen, len(speech.spoken) / MEL_RATE)
    return picture


def _draw_wave(pen: ImageDraw, heard: DrivingAudio) -> None:
    low, high = _envelope(heard)
    scale = (WAVE_PX / 2 - 4) / max(float(np.abs([low, high]).max()), 1e-9)
    for x in range(WIDTH_PX):
        pen.line([(x, WAVE_PX / 2 - high[x] * scale), (x, WAVE_PX / 2 - low[x] * scale)], fill=INK)


def _draw_level(pen: ImageDraw, speech: VoiceActivity, columns: np.ndarray) -> None:
    def y(level_db: float) -> float:
        return WAVE_PX + LEVEL_PX - level_db / TALLEST_DB * (LEVEL_PX - 8)

    tops = [float(speech.level_db[first : max(end, first + 1)].max()) for first, end in pairwise(columns)]
    pen.line([(x, y(top)) for x, top in enumerate(tops)], fill=CURVE)
    pen.line([(0, y(speech.threshold_db)), (WIDTH_PX, y(speech.threshold_db))], fill=LINE)
    pen.text((4, y(speech.threshold_db) - 12), f"{speech.threshold_db:g} dB", fill=LINE)
    share = f"speech in {speech.spoken.mean():.0%} of {len(speech.spoken) / MEL_RATE:.1f} s"
    pen.text((WIDTH_PX - 4, 2), share, fill=INK, anchor="ra")


def _draw_time(pen: ImageDraw, seconds: float) -> None:
    apart = next((tick for tick in TICKS_SECONDS if seconds / tick <= TICKS_AT_MOST), TICKS_SECONDS[-1])
    for tick in np.arange(0, seconds, apart):
        x = tick / seconds * WIDTH_PX
        pen.line([(x, WAVE_PX + LEVEL_PX), (x, WAVE_PX + LEVEL_PX + 4)], fill=INK)
        pen.text((x + 2, WAVE_PX + LEVEL_PX + 4), f"{tick:g} s", fill=INK)


def _envelope(heard: DrivingAudio) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest sample of each column, without a copy of the recording."""
    edges = np.linspace(0, heard.sample_count * heard.source.rate / SAMPLE_RATE, WIDTH_PX + 1).astype(int)
    low, high = np.zeros((2, WIDTH_PX))
    for x, (first, end) in enumerate(pairwise(edges - heard.shift_samples)):
        part = heard.source.samples[:, max(first, 0) : max(end, first + 1, 0)]
        if part.shape[1]:
            low[x], high[x] = (float(extreme) for extreme in part.aminmax())
    return low, high
