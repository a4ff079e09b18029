"""What others may add by one registry row: a model version, a detector, a sampler, a blend mode, an output format."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync import LipSyncPipeline, LipSyncResult, Waveform
from latentsync.compositing.mouth_blend import MouthBlender
from latentsync.compositing.settings import BLENDERS, BlendSettings
from latentsync.faces.detection import DetectionHints, FaceDetection, FaceDetector
from latentsync.faces.detectors import DETECTORS
from latentsync.output import formats
from latentsync.output.formats import FORMATS
from latentsync.sampling.schedulers import DDIM, SCHEDULERS
from latentsync.stages import detect_faces, select_face
from latentsync.video.frame_source import FrameSource, ImageBatch
from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import MODELS
from latentsync.weights.locate import folders_in
from tests.support.synthetic_models import write_models

FRAMES, SIZE = 1, 64  # the VAE takes 20 s for one frame of 768 pixels
SPEECH = Waveform(torch.sin(torch.arange(640 * FRAMES) * 0.3)[None] * 0.5, 16_000)  # as long as the frames
SAMPLING = {"num_inference_steps": 1, "guidance_scale": 1.0}


class CenterFace(FaceDetector):
    """A detector that finds one face in the middle of every frame: a box, three points and a yaw; no mesh."""

    def detect(self, frame: np.ndarray, hints: DetectionHints) -> list[FaceDetection]:
        height, width = frame.shape[:2]
        brow_left, brow_right, nose = ((x * width, y * height) for x, y in ((0.4, 0.4), (0.6, 0.4), (0.5, 0.55)))
        box = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
        return [FaceDetection(box, 0.9, brow_left, brow_right, nose, yaw=0.0)]


@pytest.fixture
def source() -> FrameSource:
    picture = np.random.default_rng(1).random((1, SIZE, SIZE, 3), dtype=np.float32)
    return ImageBatch(torch.from_numpy(picture).repeat(FRAMES, 1, 1, 1), Fraction(25))


@pytest.fixture(autouse=True)
def center_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that adds a detector."""
    monkeypatch.setitem(DETECTORS, "center", lambda _locate, _min_confidence: CenterFace())


def lip_sync(pipe: LipSyncPipeline, source: FrameSource, folder: Path, **options: object) -> LipSyncResult:
    faces = detect_faces(source, folders_in(folder), detector="center")
    return pipe(source, SPEECH, face=select_face(faces).track, **{**SAMPLING, **options})


def test_extension_detector_runs_by_one_row(source: FrameSource, tmp_path: Path) -> None:
    result = lip_sync(LipSyncPipeline.untrained(), source, tmp_path)
    frames = list(result.frames())
    assert len(frames) == FRAMES
    assert result.synced_frame_count == FRAMES
    assert any((frame != original).any() for frame, original in zip(frames, source.read(range(FRAMES)), strict=True))


@pytest.mark.slow
def test_extension_model_version_runs_by_one_row(
    source: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of 768 pixels: found on disk, chosen as the best, and run."""
    unet = replace(MODELS["1.6"].unet, path="latentsync/1.7/latentsync_unet.pt", size_bytes=1, aliases=())
    unet = replace(unet, aliases=("latentsync/1.7/latentsync_unet.safetensors",))
    new = replace(MODELS["1.6"], version="1.7", resolution=768, unet=unet, min_vram_bytes=0, rank=3)
    monkeypatch.setitem(MODELS, "1.7", new)
    write_models(tmp_path, "1.7")
    pipe = LipSyncPipeline.from_pretrained(models_dir=tmp_path)
    assert pipe.spec.version == "1.7"
    result = lip_sync(pipe, source, tmp_path)
    assert result.speakers[0].latents.shape == (FRAMES, 4, 96, 96)
    assert len(list(result.frames())) == FRAMES


def test_extension_scheduler_runs_by_one_row(
    source: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    class Counting(DDIM):
        def step(self, latents: torch.Tensor, noise_pred: torch.Tensor, step: int) -> torch.Tensor:
            steps.append(step)
            return super().step(latents, noise_pred, step)

    monkeypatch.setitem(SCHEDULERS, "counting", Counting)
    lip_sync(LipSyncPipeline.untrained(), source, tmp_path, num_inference_steps=3, scheduler="counting")
    assert steps == [0, 1, 2]


def test_extension_blend_mode_runs_by_one_row(
    source: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class White(MouthBlender):
        def paste(
            self, frame: np.ndarray, face: torch.Tensor, matrix: np.ndarray, opacity: float | np.ndarray = 1.0
        ) -> np.ndarray:
            return np.ones_like(frame)

    monkeypatch.setitem(BLENDERS, "white", White)
    result = lip_sync(LipSyncPipeline.untrained(), source, tmp_path, blend=BlendSettings("white"))
    assert all((frame == 1).all() for frame in result.frames())


def test_extension_output_format_runs_by_one_row(
    source: FrameSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mjpeg = replace(FORMATS[0], name="avi mjpeg", suffix=".avi", muxer="avi", encoder="mjpeg", pix_fmt="yuvj420p")
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, replace(mjpeg, has_crf=False, options=())))
    saved = lip_sync(LipSyncPipeline.untrained(), source, tmp_path).save(tmp_path / "out.avi")
    assert VideoFile(saved).frame_count == FRAMES
