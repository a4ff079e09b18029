"""Draw the templates' thumbnails: what each one takes, and what it gives.

The faces are frames of the demo's sample clip, and of the miniature model's result. A colored line marks the area that
the model draws again.

Usage: python -m scripts.template_pictures [FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from latentsync.faces.alignment import crop_size
from latentsync.faces.warp import warp_to_crop, warp_to_frame
from scripts.comfyui import REPOSITORY
from scripts.occlusion_picture import LOWER_LIP, microphone
from scripts.overview_picture import (
    ACCENT,
    BACKGROUND,
    GRAY,
    INK,
    RESOLUTION,
    Color,
    arrow,
    draw_wave,
    edged,
    first_face,
    mouth_area,
    text,
)
from scripts.sample_clip import camera_path, face_landmarks, speech
from scripts.talking_strip import SECONDS, talking_frames

SIZE = (640, 480)
MIDDLE_Y = SIZE[1] / 2
PORTRAIT = (225, 300)
SECOND = (230, 120, 40)
"""The color of the second person, and of a song's instruments."""
SPOKEN = (15, 22, 28)
"""Indices of frames of the result in which the mouth has different shapes."""
RESTORED_FROM_PX = 48
JPEG_QUALITY = 80


class Faces:
    """A frame of the sample, results with the new area marked, one in another color, and the crop of a result.

    `covered` has a frame and a marked result with a microphone in front.
    """

    def __init__(self) -> None:
        frames, matrices = talking_frames(speech(SECONDS))

        def marked(index: int, color: Color = ACCENT) -> Image.Image:
            size = (frames[index].shape[0], frames[index].shape[1])
            return edged(frames[index], warp_to_frame(mouth_area(), matrices[index], size, 0), color)

        frame, _, _ = first_face()
        self.frame = Image.fromarray(frame)
        self.spoken = [marked(index) for index in SPOKEN]
        self.second = ImageOps.mirror(marked(SPOKEN[1], SECOND))
        landmarks = face_landmarks(camera_path(SPOKEN[0] + 1))["frames"]
        self.covered = [
            with_microphone(image, np.array(landmarks[index][0]["landmarks_xy"])[LOWER_LIP])
            for index, image in ((0, self.frame), (SPOKEN[0], self.spoken[0]))
        ]
        spoken = frames[SPOKEN[0]].astype(np.float32)
        crop = warp_to_crop(spoken, matrices[SPOKEN[0]], crop_size(RESOLUTION), 0)
        self.crop = Image.fromarray(np.uint8(crop.clip(0, 255)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "workflows")
    folder = parser.parse_args().folder
    faces = Faces()
    for draw_idea in (video, image_to_video, images, song, two_speakers, restored, long_video, dub, occlusion):
        picture = Image.new("RGB", SIZE, BACKGROUND)
        draw_idea(picture, faces)
        picture.save(folder / f"lipsync_{draw_idea.__name__}.jpg", quality=JPEG_QUALITY, optimize=True)


def video(picture: Image.Image, faces: Faces) -> None:
    """A video and a recording become a video with a new mouth."""
    draw = ImageDraw.Draw(picture)
    add(picture, faces.frame, (30, 45), PORTRAIT)
    draw_wave(draw, (30, 370, 255, 440), speech(1.5))
    arrow(draw, 285, 355, MIDDLE_Y)
    add(picture, faces.spoken[0], (385, 45), PORTRAIT)
    draw_wave(draw, (385, 370, 610, 440), speech(1.5))


def image_to_video(picture: Image.Image, faces: Faces) -> None:
    """A photo and a recording become a film."""
    draw = ImageDraw.Draw(picture)
    photo = ImageOps.expand(faces.frame.resize((180, 240)), 12, "white")
    add(picture, photo, (30, 65), photo.size)
    draw_wave(draw, (30, 370, 234, 440), speech(1.5))
    arrow(draw, 260, 320, MIDDLE_Y)
    film(picture, faces.spoken, (345, 120), 2, (130, 173))
    draw_wave(draw, (345, 370, 610, 440), speech(2.0))


def images(picture: Image.Image, faces: Faces) -> None:
    """A stack of frames becomes a stack of frames."""
    draw = ImageDraw.Draw(picture)
    for x, image in ((30, faces.frame), (375, faces.spoken[0])):
        for offset in (60, 40, 20, 0):
            add(picture, image, (x + offset // 2, 50 + offset), (200, 267))
    arrow(draw, 280, 350, MIDDLE_Y - 20)
    draw_wave(draw, (205, 400, 435, 450), speech(1.5))


def song(picture: Image.Image, faces: Faces) -> None:
    """The voice drives the lips. The instruments do not."""
    draw = ImageDraw.Draw(picture)
    rhythm = np.abs(np.sin(np.linspace(0, 12 * np.pi, 4000))) * np.linspace(0.5, 1, 4000)
    draw_wave(draw, (30, 90, 285, 180), rhythm, SECOND)
    draw_note(draw, (330, 170), SECOND)
    draw_wave(draw, (30, 290, 285, 380), speech(1.5))
    arrow(draw, 300, 360, 335)
    add(picture, faces.spoken[0], (385, 90), PORTRAIT)


def two_speakers(picture: Image.Image, faces: Faces) -> None:
    """Each person has a recording."""
    draw = ImageDraw.Draw(picture)
    add(picture, faces.spoken[0], (50, 40), (270, 330), centering=(0.5, 0.3))
    add(picture, faces.second, (320, 40), (270, 330), centering=(0.5, 0.3))
    sound = speech(3.0)
    half = len(sound) // 2
    draw_wave(draw, (70, 385, 300, 455), sound[:half])
    draw_wave(draw, (340, 385, 570, 455), sound[half:], SECOND)


def restored(picture: Image.Image, faces: Faces) -> None:
    """A coarse face becomes a sharp one."""
    draw = ImageDraw.Draw(picture)
    width, height = 230, round(230 * faces.crop.height / faces.crop.width)
    coarse = faces.crop.resize((RESTORED_FROM_PX, RESTORED_FROM_PX), Image.Resampling.BOX)
    coarse = coarse.resize(faces.crop.size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(3))
    top = round(MIDDLE_Y - height / 2)
    add(picture, coarse, (30, top), (width, height))
    arrow(draw, 285, 355, MIDDLE_Y)
    add(picture, faces.crop, (380, top), (width, height))


def long_video(picture: Image.Image, faces: Faces) -> None:
    """An hour of film and of speech."""
    draw = ImageDraw.Draw(picture)
    film(picture, faces.spoken, (-30, 80), 6, (125, 167))
    draw_wave(draw, (0, 300, SIZE[0], 370), speech(8.0))
    draw.line((30, 415, 610, 415), fill=GRAY, width=4)
    for x, label, anchor in ((30, "0:00:00", "la"), (610, "1:00:00", "ra")):
        draw.line((x, 403, x, 427), fill=GRAY, width=4)
        text(draw, (x, 434), label, INK, 24, anchor)


def dub(picture: Image.Image, faces: Faces) -> None:
    """A video in one language becomes a video in another."""
    draw = ImageDraw.Draw(picture)
    sound = speech(3.0)
    half = len(sound) // 2
    for x, image, words, spoken, color in (
        (30, faces.frame, "Hello", sound[:half], ACCENT),
        (385, faces.spoken[0], "Hola", sound[half:], SECOND),
    ):
        text(draw, (x + PORTRAIT[0] / 2, 20), words, color, 36, "ma")
        add(picture, image, (x, 75), PORTRAIT)
        draw_wave(draw, (x, 390, x + PORTRAIT[0], 460), spoken, color)
    arrow(draw, 285, 355, MIDDLE_Y)


def occlusion(picture: Image.Image, faces: Faces) -> None:
    """A microphone stays in front of the new mouth."""
    draw = ImageDraw.Draw(picture)
    for x, image in ((30, faces.covered[0]), (385, faces.covered[1])):
        add(picture, image, (x, 45), PORTRAIT)
        draw_wave(draw, (x, 370, x + PORTRAIT[0], 440), speech(1.5))
    arrow(draw, 285, 355, MIDDLE_Y)


def with_microphone(image: Image.Image, lip: np.ndarray) -> Image.Image:
    """The image with a microphone in front of a point (x, y) in pixels."""
    colors, opacity = microphone((image.height, image.width), lip, True)
    pixels = np.asarray(image, np.float32)
    return Image.fromarray(np.uint8(pixels + opacity[..., None] * (255 * colors - pixels)))


def add(
    picture: Image.Image,
    image: Image.Image,
    at: tuple[int, int],
    size: tuple[int, int],
    centering: tuple[float, float] = (0.5, 0.5),
) -> None:
    """An image in a thin frame, cut to the size where its proportions differ."""
    picture.paste(ImageOps.fit(image, size, Image.Resampling.LANCZOS, centering=centering), at)
    ImageDraw.Draw(picture).rectangle((at[0] - 1, at[1] - 1, at[0] + size[0], at[1] + size[1]), outline=GRAY)


def film(
    picture: Image.Image, images: Sequence[Image.Image], at: tuple[int, int], count: int, size: tuple[int, int]
) -> None:
    """A film strip. The images repeat in order."""
    draw = ImageDraw.Draw(picture)
    width = count * (size[0] + 8)
    draw.rectangle((at[0], at[1] - 24, at[0] + width, at[1] + size[1] + 24), fill=INK)
    for x in range(at[0] + 8, at[0] + width - 8, 22):
        for y in (at[1] - 17, at[1] + size[1] + 7):
            draw.rounded_rectangle((x, y, x + 11, y + 10), 2, fill=BACKGROUND)
    for number in range(count):
        image = images[number % len(images)]
        picture.paste(image.resize(size, Image.Resampling.LANCZOS), (at[0] + 4 + number * (size[0] + 8), at[1]))


def draw_note(draw: ImageDraw.ImageDraw, at: tuple[int, int], fill: Color) -> None:
    """An eighth note; `at` is the middle of its head."""
    x, y = at
    draw.ellipse((x - 16, y - 11, x + 16, y + 11), fill=fill)
    draw.rectangle((x + 10, y - 75, x + 16, y), fill=fill)
    draw.polygon([(x + 10, y - 75), (x + 40, y - 50), (x + 40, y - 30), (x + 10, y - 50)], fill=fill)


if __name__ == "__main__":
    main()
