"""MediaPipe's real image segmenter with a file of known output: one convolution that classifies pixels by color."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from latentsync.errors import UsageError, WeightsError
from latentsync.faces.segmenters import OCCLUSION, SEGMENTERS, Segmenter, SegmenterEntry, open_segmenter
from latentsync.faces.selfie_segmenter import SelfieSegmenter
from latentsync.weights import locate
from latentsync.weights.catalog import SELFIE_SEGMENTER
from tests.support.toy_segmenter import CLASS_COLORS, write_toy_segmenter

OBJECTS = (1, 0, 1, 0, 1, 1)
"""Score of background, hair, body skin, face skin, clothes and others."""


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    folder = tmp_path_factory.mktemp("\u6a21\u578b")
    write_toy_segmenter(folder / SELFIE_SEGMENTER.path)
    with closing(open_segmenter(lambda file: locate.require(file, locate.folders_in(folder)), "auto")) as opened:
        yield opened


def test_selfie_segmenter_scores_all_but_face_and_hair(segmenter: Segmenter) -> None:
    width = 420 // len(CLASS_COLORS)
    view = np.repeat(np.repeat(np.array([CLASS_COLORS], np.uint8), width, axis=1), 420, axis=0)
    score = segmenter.score(view)
    assert score.shape == (420, 420)
    assert score.dtype == np.float32
    np.testing.assert_allclose(score[200, width // 2 :: width], OBJECTS, atol=1e-3)


def test_selfie_segmenter_score_is_between_classes(segmenter: Segmenter) -> None:
    """Halfway between the colors of face skin and of others, both classes are equally likely."""
    halfway = (np.array(CLASS_COLORS[3]) + CLASS_COLORS[5]) / 2
    score = segmenter.score(np.full((420, 420, 3), np.rint(halfway), np.uint8))
    assert 0.2 < score.mean() < 0.8
    assert np.ptp(score) < 1e-3


def test_selfie_segmenter_names_a_file_of_other_content(tmp_path: Path) -> None:
    path = tmp_path / "segmenter.tflite"
    path.write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r'segmenter.tflite is not a valid image segmenter.*"occlusion" to off'):
        SelfieSegmenter(path)


def test_selfie_segmenter_names_a_file_of_other_classes(tmp_path: Path) -> None:
    path = write_toy_segmenter(tmp_path / "two.tflite", CLASS_COLORS[:2])
    with closing(SelfieSegmenter(path)) as opened, pytest.raises(WeightsError, match=r"two\.tflite has 2 classes"):
        opened.score(np.zeros((420, 420, 3), np.uint8))


def test_segmenter_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    folders = locate.folders_in(tmp_path)
    with pytest.raises(WeightsError) as caught:
        open_segmenter(lambda file: locate.require(file, folders), "auto")
    for part in (SELFIE_SEGMENTER.url, "16 MB", "latentsync download occlusion", 'also set "occlusion" to off.'):
        assert part in str(caught.value)


def test_segmenters_registry_opens_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def score(self, view: np.ndarray) -> np.ndarray:
            return np.zeros(view.shape[:2], np.float32)

        def close(self) -> None:
            pass

    monkeypatch.setitem(SEGMENTERS, "nothing", SegmenterEntry(SELFIE_SEGMENTER, lambda *_: Nothing()))
    assert isinstance(open_segmenter(lambda file: Path(file.name), "nothing"), Nothing)
    assert "off" in OCCLUSION
    with pytest.raises(UsageError, match='"occlusion" cannot be off'):
        open_segmenter(lambda file: Path(file.name), "off")
