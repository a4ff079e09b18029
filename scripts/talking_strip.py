"""Draw the README's picture: eight frames of the demo's result over the sound that its lips follow.

Usage: python -m scripts.talking_strip [FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from latentsync import LipSyncPipeline, VideoFile, Waveform, detect_faces, select_face
from latentsync.faces.alignment import track_matrices
from latentsync.weights.locate import folders_in
from scripts.comfyui import REPOSITORY
from scripts.overview_picture import ACCENT, BACKGROUND, GRAY, INK, JPEG_QUALITY, RESOLUTION, draw_wave, text
from scripts.sample_clip import FRAME_RATE, SAMPLE_RATE, camera_path, face_landmarks, speech, write_video

SECONDS = 2.0
FRAMES = 8
PANEL = (170, 214)
FACE = (70, 60, 410, 488)  # left, top, right, bottom of the part that is shown
GAP, MARGIN, TITLE = 6, 24, 56
WAVE_HEIGHT = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=REPOSITORY / "docs" / "images" / "demo.jpg")
    draw_strip().save(parser.parse_args().file, quality=JPEG_QUALITY, optimize=True)


def draw_strip() -> Image.Image:
    sound = speech(SECONDS)
    frames, _ = talking_frames(sound)
    step = len(frames) / FRAMES
    picked = [int((i + 0.5) * step) for i in range(FRAMES)]
    width = 2 * MARGIN + FRAMES * PANEL[0] + (FRAMES - 1) * GAP
    wave_top = TITLE + PANEL[1] + 34
    picture = Image.new("RGB", (width, wave_top + WAVE_HEIGHT + 20), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    text(draw, (width / 2, 12), "The lips follow the new speech", INK, 26, "ma")
    draw_wave(draw, (MARGIN, wave_top, width - MARGIN, wave_top + WAVE_HEIGHT), sound)
    for column, index in enumerate(picked):
        left = MARGIN + column * (PANEL[0] + GAP)
        picture.paste(Image.fromarray(frames[index]).crop(FACE).resize(PANEL, Image.Resampling.LANCZOS), (left, TITLE))
        instant = MARGIN + (width - 2 * MARGIN) * (index + 0.5) / len(frames)
        draw.line((left + PANEL[0] / 2, TITLE + PANEL[1] + 4, instant, wave_top - 4), fill=GRAY, width=2)
        draw.line((instant, wave_top, instant, wave_top + WAVE_HEIGHT), fill=GRAY, width=1)
    draw.rectangle((MARGIN, wave_top, width - MARGIN, wave_top + WAVE_HEIGHT), outline=ACCENT)
    return picture


def talking_frames(sound: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The demo's clip, lip-synced to `sound` by the miniature model with the default settings.

    Returns:
        The frames, and the matrices (frames, 2, 3) from their pixels to a face crop of RESOLUTION.
    """
    cameras = camera_path(round(SECONDS * FRAME_RATE))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.mp4"
        write_video(path, cameras)
        video = VideoFile(path)
        track = select_face(detect_faces(video, folders_in(path.parent), landmarks=face_landmarks(cameras))).track
        waveform = Waveform(torch.from_numpy(sound).float()[None], SAMPLE_RATE)
        result = LipSyncPipeline.miniature()(video, waveform, face=track, progress=True)
        return list(result.frames()), track_matrices(track, RESOLUTION)


if __name__ == "__main__":
    main()
