"""Chart of a score: distance by offset, and confidence over time with its weak parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..audio.plot import AXIS_PX, BACKGROUND, WAVE, WIDTH_PX, draw_time_axis, pixel_columns
from .sync import FRAME_MS, MAX_SHIFT, WEAK_SHARE, SyncScore

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from .score import Score

TITLE_PX, PANEL_PX = 24, 160
WEAK, CURVE, BEST, GRID = "#f8d8d0", "#1060c0", "#c04020", "#d0d4d8"
LABEL_EVERY = 5  # frames of offset between two labels


def plot_score(score: Score) -> Image:
    """Draw a score.

    Returns:
        An image of 1024 x 408 pixels, for any duration. Without SyncNet, the panels are empty.
    """
    from PIL import Image, ImageDraw

    height = 2 * (TITLE_PX + PANEL_PX + AXIS_PX)
    image = Image.new("RGB", (WIDTH_PX, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    if score.sync is None:
        draw.text((8, TITLE_PX), f"{score.name}: not measured, because the weights of SyncNet are missing", fill=WAVE)
        return image
    _draw_offsets(draw, score.sync, TITLE_PX)
    _draw_time(draw, score.sync, TITLE_PX + PANEL_PX + AXIS_PX + TITLE_PX)
    return image


def _draw_offsets(draw: ImageDraw, sync: SyncScore, top: int) -> None:
    means, bottom = sync.mean_distances, top + PANEL_PX
    spread = max(float(np.ptp(means)), 1e-9)
    xs = (np.arange(len(means)) + 0.5) / len(means) * WIDTH_PX
    ys = bottom - 8 - (means - means.min()) / spread * (PANEL_PX - 16)
    title = f"distance by offset: lowest {sync.distance:.2f}, confidence {sync.confidence:.2f}"
    draw.text((4, top - TITLE_PX + 6), f"{title}, the sound leads by {sync.offset_ms} ms", fill=WAVE)
    for k in range(0, len(means), LABEL_EVERY):
        lead_ms = FRAME_MS * (MAX_SHIFT - k)
        draw.line([(xs[k], top), (xs[k], bottom)], fill=BEST if lead_ms == 0 else GRID)
        draw.text((xs[k], bottom + 4), f"{lead_ms:+d} ms" if lead_ms else "0", fill=WAVE, anchor="ma")
    draw.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=CURVE, width=2)
    best = int(np.argmin(means))
    draw.ellipse([xs[best] - 4, ys[best] - 4, xs[best] + 4, ys[best] + 4], fill=BEST)


def _draw_time(draw: ImageDraw, sync: SyncScore, top: int) -> None:
    values, bottom = sync.confidence_over_time, top + PANEL_PX
    limit = WEAK_SHARE * sync.confidence
    low, high = min(0.0, float(np.nanmin(values))), max(float(np.nanmax(values)), limit, 1e-9)

    def y(value: float) -> float:
        return bottom - 4 - (value - low) / (high - low) * (PANEL_PX - 8)

    weak = np.zeros(len(values), bool)
    for run in sync.weak_ranges:
        weak[run.start : run.stop] = True
        left, right = (edge / len(values) * WIDTH_PX for edge in (run.start, run.stop))
        draw.rectangle([left, top, right, bottom], fill=WEAK)
    title = f"confidence over time: {high:.1f} at most, weak (shaded) in {weak.mean():.0%}"
    draw.text((4, top - TITLE_PX + 6), title, fill=WAVE)
    draw.line([(0, y(0)), (WIDTH_PX, y(0))], fill=GRID)
    draw.line([(0, y(limit)), (WIDTH_PX, y(limit))], fill=BEST)
    points: list[tuple[float, float]] = []
    for x, column in enumerate([*pixel_columns(values), np.array([np.nan])]):
        known = column[np.isfinite(column)]
        if len(known):
            points.append((x, y(float(known.mean()))))
            continue
        if len(points) > 1:  # frames without the face interrupt the curve
            draw.line(points, fill=CURVE, width=2)
        points = []
    draw_time_axis(draw, len(values) * FRAME_MS / 1000, bottom)
