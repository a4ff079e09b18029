"""Draw the README's picture: what goes in, which area the model draws again, what comes out.

Everything in it is computed from the demo's sample clip by the library. No network runs, so the mouth stays as it was.

Usage: python -m scripts.overview_picture [FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from latentsync import TrackSettings, VideoFile, detect_faces, select_face
from latentsync.faces.alignment import crop_size, keep_mask, track_matrices
from latentsync.faces.warp import warp_to_crop, warp_to_frame
from latentsync.weights.locate import folders_in
from scripts.comfyui import REPOSITORY
from scripts.sample_clip import camera_path, face_landmarks, speech, write_video

SIZE = (1400, 690)
PANEL = (330, 440)
LEFT_X, MIDDLE_X, RIGHT_X = 40, 535, 1030
TOP_Y, WAVE_Y, WAVE_HEIGHT = 84, 560, 84
BACKGROUND, INK, GRAY, ACCENT = (247, 248, 252), (28, 32, 48), (112, 118, 138), (24, 122, 222)
TINT = 0.45
RESOLUTION = 512
JPEG_QUALITY = 86

FloatArray = npt.NDArray[np.float32]
Color = tuple[int, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=REPOSITORY / "docs" / "images" / "overview.jpg")
    draw_overview().save(parser.parse_args().file, quality=JPEG_QUALITY, optimize=True)


def draw_overview() -> Image.Image:
    frame, box, matrix = first_face()
    redrawn = mouth_area()
    crop = warp_to_crop(frame.astype(np.float32), matrix, crop_size(RESOLUTION), 0)
    in_frame = warp_to_frame(redrawn, matrix, (frame.shape[0], frame.shape[1]), 0)
    picture = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    add_panel(picture, LEFT_X, "Your video", outlined_box(frame, box))
    add_panel(picture, MIDDLE_X, "The face, upright", tinted(crop, redrawn))
    add_panel(picture, RIGHT_X, "The same video, new lips", edged(frame, in_frame))
    sound = speech(2.0)
    for x in (LEFT_X, RIGHT_X):
        draw_wave(draw, (x, WAVE_Y, x + PANEL[0], WAVE_Y + WAVE_HEIGHT), sound)
        text(draw, (x + PANEL[0] / 2, WAVE_Y + WAVE_HEIGHT + 6), "Your recording", INK, 24, "ma")
    text(draw, (MIDDLE_X + PANEL[0] / 2, TOP_Y + PANEL[1] + 20), "Only the blue area is new:", INK, 24, "ma")
    text(draw, (MIDDLE_X + PANEL[0] / 2, TOP_Y + PANEL[1] + 52), "LatentSync draws lips", INK, 24, "ma")
    text(draw, (MIDDLE_X + PANEL[0] / 2, TOP_Y + PANEL[1] + 84), "that match the recording.", INK, 24, "ma")
    for y in (TOP_Y + PANEL[1] / 2, WAVE_Y + WAVE_HEIGHT / 2):
        arrow(draw, LEFT_X + PANEL[0] + 30, MIDDLE_X - 30, y)
        arrow(draw, MIDDLE_X + PANEL[0] + 30, RIGHT_X - 30, y)
    return picture


def first_face() -> tuple[npt.NDArray[np.uint8], FloatArray, FloatArray]:
    """The first frame of the sample, its face box, and the map from the frame to the crop."""
    cameras = camera_path(12)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        write_video(path, cameras)
        video = VideoFile(path)
        people = detect_faces(video, folders_in(path.parent), landmarks=face_landmarks(cameras))
        track = select_face(people, settings=TrackSettings()).track
        frame = next(video.read([0]))
    return frame, people.members[0].boxes[0], track_matrices(track, RESOLUTION)[0]


def mouth_area() -> FloatArray:
    """1 where the model draws the crop again, in the crop's own proportions."""
    mask = Image.fromarray(np.uint8(255 * (1 - keep_mask(RESOLUTION))))
    return np.asarray(mask.resize(crop_size(RESOLUTION), Image.Resampling.BILINEAR), np.float32) / 255


def outlined_box(frame: npt.NDArray[np.uint8], box: FloatArray) -> Image.Image:
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).rectangle(tuple(box), outline=ACCENT, width=5)
    return image


def tinted(image: FloatArray, weight: FloatArray, color: Color = ACCENT) -> Image.Image:
    opacity = TINT * weight[..., None]
    return Image.fromarray(np.uint8((image * (1 - opacity) + np.array(color) * opacity).clip(0, 255)))


def edged(frame: npt.NDArray[np.uint8], weight: FloatArray, color: Color = ACCENT) -> Image.Image:
    """The frame with the edge of the area as a line."""
    inside = weight > 0.5
    shifts = [np.roll(inside, (y, x), (0, 1)) for y in (-2, 0, 2) for x in (-2, 0, 2)]
    edge = np.logical_or.reduce(shifts) & ~np.logical_and.reduce(shifts)
    return tinted(frame.astype(np.float32), edge.astype(np.float32) / TINT, color)


def add_panel(picture: Image.Image, x: int, title: str, image: Image.Image) -> None:
    picture.paste(image.resize(PANEL, Image.Resampling.LANCZOS), (x, TOP_Y))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - 1, TOP_Y - 1, x + PANEL[0], TOP_Y + PANEL[1]), outline=GRAY)
    text(draw, (x + PANEL[0] / 2, TOP_Y - 48), title, INK, 30, "ma")


def draw_wave(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    sound: npt.NDArray[np.float64],
    fill: Color = ACCENT,
) -> None:
    """The peaks of a recording as bars; `box` is left, top, right, bottom."""
    left, top, right, bottom = box
    middle = (top + bottom) / 2
    for i, part in enumerate(np.array_split(sound, int((right - left) // 6))):
        half = max(2, np.abs(part).max() * (bottom - top) / 2)
        draw.rounded_rectangle((left + 6 * i, middle - half, left + 6 * i + 3, middle + half), 2, fill=fill)


def arrow(draw: ImageDraw.ImageDraw, start: float, stop: float, y: float) -> None:
    draw.line((start, y, stop - 14, y), fill=GRAY, width=6)
    draw.polygon([(stop, y), (stop - 22, y - 13), (stop - 22, y + 13)], fill=GRAY)


def text(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, fill: Color, size: int, anchor: str) -> None:
    draw.text(at, words, fill=fill, font=ImageFont.load_default(size), anchor=anchor)


if __name__ == "__main__":
    main()
