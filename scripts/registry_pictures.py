"""Draw the pictures that the registry shows: the pack's icon and its banner.

Usage: python -m scripts.registry_pictures [FOLDER]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from PIL import Image, ImageDraw

from scripts.comfyui import REPOSITORY

ICON_PX = 400
BANNER_PX = (1260, 540)
FINER = 4  # drawn so many times larger, for smooth edges

BACKGROUND = (24, 26, 38)
LIPS = (240, 92, 110)
INSIDE = (96, 22, 44)
SOUND = (104, 196, 255)

Point = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the registry's icon and banner.")
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "docs" / "images")
    folder = parser.parse_args().folder
    icon().save(folder / "icon.png", optimize=True)
    banner().save(folder / "banner.png", optimize=True)


def icon() -> Image.Image:
    """A mouth with speech within it, on a square."""
    picture = Image.new("RGB", (ICON_PX * FINER,) * 2, BACKGROUND)
    middle = ICON_PX * FINER / 2
    draw_mouth(ImageDraw.Draw(picture), (middle, middle), 0.8 * middle)
    return picture.resize((ICON_PX, ICON_PX), Image.Resampling.LANCZOS).quantize(64)


def banner() -> Image.Image:
    """The mouth between two stretches of speech, 21:9."""
    width, height = (side * FINER for side in BANNER_PX)
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    radius = 0.36 * height
    draw_mouth(draw, (width / 2, height / 2), radius)
    for side in (-1, 1):
        for bar in range(14):
            x = width / 2 + side * (1.25 * radius + bar * 0.034 * width)
            loudness = abs(math.sin(1.7 * bar + 0.6) * math.cos(0.6 * bar))
            draw_bar(draw, (x, height / 2), (0.08 + 0.5 * loudness) * height / 2, 0.008 * width)
    return picture.resize(BANNER_PX, Image.Resampling.LANCZOS).quantize(64)


def draw_mouth(draw: ImageDraw.ImageDraw, middle: Point, radius: float) -> None:
    """Open lips of half width `radius`, with the bars of a voice between them."""
    draw.polygon(outline(middle, radius, opening=0.62, dip=0.13), fill=LIPS)
    draw.polygon(outline(middle, 0.78 * radius, opening=0.44, dip=0.04), fill=INSIDE)
    for step, loudness in enumerate((0.25, 0.6, 1.0, 0.45, 0.8, 0.5, 0.2)):
        x = middle[0] + (step - 3) * 0.16 * radius
        draw_bar(draw, (x, middle[1]), 0.26 * loudness * radius, 0.045 * radius)


def outline(middle: Point, half_width: float, opening: float, dip: float) -> list[Point]:
    """Two arcs from corner to corner; the upper one dips in its middle, as a lip does."""
    arc = [math.pi * step / 60 for step in range(61)]
    upper = [(-math.cos(a), -opening * math.sin(a) + dip * math.exp(-((math.cos(a) / 0.22) ** 2))) for a in arc]
    lower = [(math.cos(a), opening * math.sin(a)) for a in arc]
    return [(middle[0] + half_width * x, middle[1] + half_width * y) for x, y in upper + lower]


def draw_bar(draw: ImageDraw.ImageDraw, middle: Point, half_height: float, half_width: float) -> None:
    """One upright bar with round ends, no shorter than it is wide."""
    x, y = middle
    half_height = max(half_height, half_width)
    draw.rounded_rectangle((x - half_width, y - half_height, x + half_width, y + half_height), half_width, fill=SOUND)


if __name__ == "__main__":
    main()
