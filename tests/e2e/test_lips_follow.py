"""The lips of the miniature model follow the sound, by every route and setting. Other lags and stillness are seen."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from latentsync import BlendSettings, ImageBatch, VideoFile, detect_faces, select_face
from latentsync.cli.main import main
from latentsync.faces.alignment import track_matrices
from latentsync.output.result import LipSyncResult
from latentsync.weights import miniature
from latentsync.weights.locate import folders_in
from scripts.comfyui import ComfyUI
from scripts.sample_clip import camera_path, face_landmarks, make_sample
from tests.lip_sync import CASES, DAILY, SECONDS, Stage, passes
from tests.support import graphs, seams
from tests.support.comfyui_server import PACKS
from tests.support.talking import QUICK, MouthMeter, level, mono, shifted_windows, side_by_side, sync, talk, voice

ONE_WINDOW = 0.64  # seconds of a window
MAX_EDGE_STEP = 0.01  # of the opening, in distances of the eyes. Measured: at most 0.001 where windows begin or end
TINT = np.array([1.12, 1.0, 0.85])  # of warm light, for red, green and blue
MAX_COLOR_ERROR = 3.0  # levels of 255. Measured: 2.1, and 20.4 without color match


@pytest.fixture(scope="module")
def stage(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The model, the meter and the clips. Needs MediaPipe's model."""
    with MouthMeter(shared / "models" / "face_landmarker.task") as meter:
        yield Stage(tmp_path_factory.mktemp("talking"), meter)


@pytest.mark.parametrize("name", DAILY)
def test_lips_follow_the_sound(stage: Stage, name: str) -> None:
    seen = CASES[name].run(stage)
    assert passes(CASES[name], seen), seen


def test_shifted_windows_are_seen(stage: Stage) -> None:
    with shifted_windows(1):
        seen = CASES["25 fps"].run(stage)
    assert not passes(CASES["25 fps"], seen), seen


def test_lips_follow_on_the_command_line(stage: Stage, tmp_path: Path) -> None:
    sample, output = make_sample(tmp_path, seconds=SECONDS), tmp_path / "out.mp4"
    arguments = ["run", sample.video, sample.audio, "-o", output, "--miniature", "--steps", 5]
    assert main([*map(str, arguments), "--face-landmarks", str(sample.landmarks)]) == 0
    assert_follows(stage, output)


@pytest.fixture
def miniature_comfyui(tmp_path: Path) -> Iterator[ComfyUI]:
    base = tmp_path / "comfyui"
    miniature.write_models(base / "models")
    make_sample(base / "input", seconds=SECONDS)
    with ComfyUI(base, packs=PACKS) as server:
        yield server


def test_lips_follow_in_comfyui(stage: Stage, miniature_comfyui: ComfyUI) -> None:
    graph = graphs.with_landmarks(graphs.load("lipsync_video"), "latentsync_sample.json")
    graph = graphs.changed(graph, "LatentSyncSampler", steps=5)
    outputs = miniature_comfyui.outputs(miniature_comfyui.run(graph))
    (video,) = [path for path in outputs if path.suffix == ".mp4"]
    assert_follows(stage, video)


def assert_follows(stage: Stage, output: Path) -> None:
    """The finished file: its frames against the sound that went in."""
    video, sound = VideoFile(output), voice(SECONDS)
    openings = stage.meter.openings(video.read(range(video.frame_count)))
    seen = sync(openings, level(mono(sound), sound.rate, video.frame_count, Fraction(video.rate)))
    assert passes(CASES["25 fps"], seen), seen


def test_silence_closes_the_mouth(stage: Stage) -> None:
    sound = voice(1.0).pad_or_trim(Fraction(2))
    frames, _ = talk(stage.pipeline, stage.track(), sound)
    openings = stage.meter.openings(frames)
    assert openings[30:].max() < 0.35 * openings[:25].max(), openings.round(2)


def test_window_edges_show_no_jump(stage: Stage) -> None:
    """With overlap 4, windows begin at frames 12, 24 and 36, and end at 28 and 40.

    Without overlap, these frames lie inside a window.
    """
    edges = np.array([12, 24, 28, 36, 40])

    def steps(overlap: int) -> np.ndarray:
        frames, _ = talk(stage.pipeline, stage.track(), voice(SECONDS), overlap=overlap)
        return np.abs(np.diff(stage.meter.openings(frames)))[edges - 1]

    added = steps(overlap=4) - steps(overlap=0)
    assert added.max() < MAX_EDGE_STEP, added.round(3)


def test_seam_matches_the_skin_around_it(stage: Stage, tmp_path: Path) -> None:
    """The model does not know this tint, and its mouth is blurred. The matchers restore color and detail."""
    tinted = [np.clip(frame * TINT, 0, 255) for frame in stage.track().source.read(range(16))]
    source = ImageBatch(torch.from_numpy(np.stack(tinted)).float() / 255, Fraction(25))
    people = detect_faces(source, folders_in(tmp_path), landmarks=face_landmarks(camera_path(16)))
    track = select_face(people).track
    matrices = track_matrices(track, miniature.RESOLUTION)

    def seam(**blend: bool) -> np.ndarray:
        """Three means over the frames.

        The error of the color inside the mask's edge in levels, the energy of the edge (`seams.energy`), and the
        sharpness of the mouth divided by that of the skin around it.
        """
        rows = []
        frames, _ = talk(stage.pipeline, track, voice(ONE_WINDOW), blend=BlendSettings(**blend))
        for frame, original, matrix in zip(frames, tinted, matrices, strict=True):
            pixels = 255.0 * frame
            inside = seams.in_frame(matrix, (frame.shape[0], frame.shape[1]), miniature.RESOLUTION).astype(np.uint8)
            edge = (inside > 0) & (cv2.erode(inside, np.ones((31, 31))) == 0)
            mouth = cv2.erode(inside, np.ones((41, 41))) > 0
            ring = (inside == 0) & (cv2.dilate(inside, np.ones((31, 31))) > 0)
            detail = np.abs(cv2.Laplacian(pixels.mean(axis=-1).astype(np.float32), cv2.CV_32F))
            error = np.abs(pixels[edge].mean(axis=0) - original[edge].mean(axis=0)).max()
            energy = seams.energy(pixels, original, matrix, miniature.RESOLUTION)
            rows.append((error, energy, detail[mouth].mean() / detail[ring].mean()))
        return np.mean(rows, axis=0)

    error, energy, _ = seam(color_match=False)
    matched_error, matched_energy, soft = seam(color_match=True)
    *_, sharp = seam(color_match=True, match_texture=True)
    assert matched_error < MAX_COLOR_ERROR < error
    assert matched_energy < energy / 2
    assert abs(np.log(sharp)) < abs(np.log(soft)) / 2


def test_two_speakers_follow_their_own_voices(stage: Stage, tmp_path: Path) -> None:
    track, first, second = stage.track(), voice(SECONDS), voice(1.22, lead=0.7)
    pair = side_by_side(track, tmp_path)
    tracks = [select_face(pair, "leftmost", index).track for index in (1, 2)]
    results = [
        stage.pipeline(t.source, sound, face=t, **QUICK) for t, sound in zip(tracks, (first, second), strict=True)
    ]
    both = list(LipSyncResult(tuple(speaker for result in results for speaker in result.speakers)).frames())
    half = both[0].shape[1] // 2
    for side, sound in ((slice(None, half), first), (slice(half, None), second)):
        openings = stage.meter.openings(frame[:, side] for frame in both)
        seen = sync(openings, level(mono(sound), sound.rate, len(both), Fraction(25)))
        assert passes(CASES["25 fps"], seen), (side, seen)
