"""The lips of the miniature model follow the sound with the settings that `make test` leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.lip_sync import CASES, DAILY, Stage, passes
from tests.support.talking import MouthMeter, talk, voice

EXACT = {"num_inference_steps": 20, "cache_interval": 1}
ONE_WINDOW = 0.64  # seconds of a window
MAX_FAST_ERROR = 0.05  # of the opening, in distances of the eyes. A wide open mouth has about 0.2


@pytest.fixture(scope="module")
def stage(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The model, the meter and the clips. Needs MediaPipe's model."""
    with MouthMeter(shared / "models" / "face_landmarker.task") as meter:
        yield Stage(tmp_path_factory.mktemp("talking"), meter)


@pytest.mark.parametrize("name", [name for name in CASES if name not in DAILY])
def test_lips_follow_the_sound(stage: Stage, name: str) -> None:
    seen = CASES[name].run(stage)
    assert passes(CASES[name], seen), seen


def test_guidance_opens_the_mouth_more(stage: Stage) -> None:
    widest = [
        np.quantile(stage.meter.openings(talk(stage.pipeline, stage.track(), voice(1.3), guidance_scale=scale)[0]), 0.9)
        for scale in (1.0, 1.5, 3.0)
    ]
    assert widest == sorted(widest), widest


@pytest.mark.parametrize(
    "settings",
    [{"cache_interval": 3}, {"scheduler": "dpmpp_2m", "num_inference_steps": 10}],
    ids=["deepcache", "dpmpp"],
)
def test_faster_settings_stay_close(stage: Stage, settings: dict[str, object]) -> None:
    exact = stage.meter.openings(talk(stage.pipeline, stage.track(), voice(ONE_WINDOW), **EXACT)[0])
    fast = stage.meter.openings(talk(stage.pipeline, stage.track(), voice(ONE_WINDOW), **(EXACT | settings))[0])
    assert np.abs(exact - fast).max() < MAX_FAST_ERROR, (exact.round(2), fast.round(2))
