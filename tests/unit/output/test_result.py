"""Saving a result: what cannot be written is refused before the first face is decoded."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError, MediaError, StorageError
from latentsync.faces.face_track import FaceTrack
from latentsync.output import result
from latentsync.output.result import LipSyncResult
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.timeline import Timeline
from tests.support import image_clip

FRAMES = 3


class NoVae:
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a face was decoded")


def made(channels: int = 1) -> LipSyncResult:
    points = np.repeat(np.array([[[60.0, 40], [90, 40], [75, 60]]]), FRAMES, axis=0)
    vae: Any = NoVae()
    lips = LipTrack(
        FaceTrack(image_clip.still(FRAMES), points),
        Timeline(Fraction(25), tuple(range(FRAMES))),
        torch.zeros(FRAMES, 4, 32, 32).half(),
        np.arange(FRAMES),
        Waveform(torch.zeros(channels, 16000), 16000),
        vae,
    )
    return LipSyncResult((lips,))


def test_save_checks_disk_room_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(result, "disk_usage", lambda _: full)
    with pytest.raises(StorageError, match=r"has 0 MB of free space, but output of this length needs at least"):
        made().save(tmp_path / "out.mkv", format="mkv ffv1 lossless")
    assert not list(tmp_path.iterdir())


def test_save_checks_audio_channels_before_work(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"aac supports .* audio channels, not 7"):
        made(channels=7).save(tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_save_into_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"missing cannot be written \(No such file or directory\)"):
        made().save(tmp_path / "missing" / "out.mp4")
