"""Occlusion masks on drawn faces, with a segmenter of known output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latentsync.errors import StorageError
from latentsync.faces import occlusion
from latentsync.faces.alignment import crop_size, template, track_matrices
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.occlusion import (
    CROP_IN_VIEW,
    VIEW_PX,
    OcclusionMasks,
    collect_masks,
    face_view,
    guided_filter,
    occlusion_masks,
    steady,
    visible_face,
)
from tests.support.image_clip import Clip

LEFT, TOP = 60, 40  # of the crop in the frame
WIDTH, HEIGHT = crop_size(256)
FRAME = (360, 340)
SKIN, GREEN = (200, 150, 130), (30, 160, 40)
CHEEK = (slice(110, 170), slice(40, 95))
"""Rows and columns of the crop, in the face and outside the lips."""
LIPS = (slice(165, 190), slice(80, 130))
NECK = (slice(250, 280), slice(60, 150))

Part = tuple[slice, slice]


class Scripted:
    """A segmenter that gives a list of scores of the crop. Outside the crop, and in the neck, nothing is face."""

    def __init__(self, scores: Iterable[np.ndarray]) -> None:
        self._scores = iter(scores)

    def score(self, view: np.ndarray) -> np.ndarray:
        assert view.shape == (VIEW_PX, VIEW_PX, 3)
        score = np.ones((VIEW_PX, VIEW_PX), np.float32)
        score[CROP_IN_VIEW] = next(self._scores)
        return score

    def close(self) -> None:
        pass


def drawn(
    parts: Sequence[Part | None], certainty: float = 0.9, color: tuple[int, int, int] = GREEN
) -> tuple[Clip, list]:
    """A face with a colored part in each frame, and the scores: `certainty` in the part, 1 in the neck, else 0.05."""
    frames = np.full((len(parts), *FRAME, 3), SKIN, np.uint8)
    frames += np.random.default_rng(1).integers(0, 5, frames.shape, np.uint8)
    scores = []
    for frame, part in zip(frames, parts, strict=True):
        score = np.full((HEIGHT, WIDTH), 0.05, np.float32)
        score[NECK] = 1
        if part is not None:
            frame[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH][part] = color
            score[part] = np.maximum(score[part], certainty)
        scores.append(score)
    return Clip(frames), scores


def track_of(clip: Clip, **fields: object) -> FaceTrack:
    points = np.repeat((template(256) + np.array([LEFT, TOP]))[None], clip.frame_count, axis=0)
    return replace(FaceTrack(clip, points, smoothing="zero-lag"), **fields)


def found(parts: Sequence[Part | None], certainty: float = 0.9, **fields: object) -> dict[int, np.ndarray]:
    clip, scores = drawn(parts, certainty)
    return dict(occlusion_masks(track_of(clip, **fields), Scripted(scores)))


def test_occlusion_finds_an_object_and_nothing_else() -> None:
    masks = found([None] * 5 + [CHEEK] * 6 + [None] * 3)
    assert [bool(mask.max() > 0.5) for mask in masks.values()] == [False] * 5 + [True] * 6 + [False] * 3
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[CHEEK] = True
    for mask in list(masks.values())[5:11]:
        both, either = (expected & (mask > 0.5)).sum(), (expected | (mask > 0.5)).sum()
        assert both / either > 0.9
        assert mask.min() >= 0
        assert mask.max() <= 1


def test_occlusion_of_a_sure_score_needs_no_history() -> None:
    """The object is there from the first frame on, so no color has changed."""
    masks = found([CHEEK] * 4, certainty=0.95)
    assert all(mask[CHEEK].mean() > 0.8 for mask in masks.values())
    assert not any(mask.any() for mask in found([CHEEK] * 4, certainty=0.5).values())


def test_occlusion_of_a_weak_score_needs_a_new_color() -> None:
    parts = [None] * 8 + [CHEEK] * 5
    assert found(parts, certainty=0.6)[10][CHEEK].mean() > 0.9
    clip, scores = drawn(parts, 0.6, color=SKIN)
    masks = dict(occlusion_masks(track_of(clip), Scripted(scores)))
    assert masks[10][CHEEK].mean() < found(parts, certainty=0.6)[10][CHEEK].mean()


def test_occlusion_takes_no_teeth_and_no_neck() -> None:
    """Inside the lips, colors change and the segmenter errs. The neck is no face, and changes with the head."""
    for part in (LIPS, NECK):
        assert not any(mask.any() for mask in found([None] * 6 + [part] * 6).values())


def test_occlusion_takes_no_beard() -> None:
    """A patch that the segmenter has doubts about, in a color that was always there."""
    assert not any(mask.any() for mask in found([CHEEK] * 12, certainty=0.7).values())


def test_occlusion_learns_colors_anew_in_each_shot() -> None:
    """The second shot has another light, and another person's beard that the segmenter doubts."""
    parts = [None] * 6 + [CHEEK] * 6
    assert any(mask.any() for mask in found(parts, certainty=0.7).values())
    assert not any(mask.any() for mask in found(parts, certainty=0.7, cuts=(6,)).values())


def test_occlusion_skips_frames_without_the_face() -> None:
    clip, scores = drawn([CHEEK] * 6, 0.95)
    track = track_of(clip)
    points = track.points.copy()
    points[2:4] = np.nan
    masks = dict(occlusion_masks(replace(track, points=points), Scripted(scores)))
    assert sorted(masks) == [0, 1, 4, 5]
    assert all(mask.any() for mask in masks.values())


def test_occlusion_uses_the_box_of_the_face() -> None:
    """A box far above the part: it is not in front of the face."""
    box = np.array([LEFT + 20, TOP, LEFT + 190, TOP + 120], float)
    boxes = np.repeat(box[None], 12, axis=0)
    assert not any(mask.any() for mask in found([None] * 6 + [CHEEK] * 6, boxes=boxes).values())


def test_occlusion_reads_a_few_frames_ahead() -> None:
    clip, scores = drawn([CHEEK] * 40, 0.95)
    read: list[int] = []

    class Counted(Clip):
        def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
            for index in indices:
                read.append(index)
                yield clip.frames[index]

    masks = occlusion_masks(track_of(Counted(clip.frames)), Scripted(scores))
    for _ in range(5):
        next(masks)
    assert len(read) < 15
    masks.close()


def test_face_view_of_a_large_face_is_averaged() -> None:
    """Stripes of one pixel, at a quarter of the size, are gray."""
    frame = np.zeros((1600, 1600, 3), np.uint8)
    frame[:, ::2] = 255
    view = face_view(frame, np.array([[0.25, 0, -80.0], [0, 0.25, -60.0]]))
    assert np.abs(view[100:300, 100:300].astype(int) - 127).max() <= 2


def test_guided_filter_aligns_a_mask_to_an_edge() -> None:
    guide = np.zeros((60, 60), np.float32)
    guide[:, 30:] = 200
    mask = np.zeros_like(guide)
    mask[:, 27:] = 1  # three pixels off
    aligned = guided_filter(guide, mask)[30]
    assert np.argmax(np.diff(aligned)) == 29, "the largest step is at the edge"
    flat = guided_filter(np.full_like(guide, 90), mask)[30]
    assert np.diff(flat).max() < 0.2, "without an edge, the mask is soft"


def masks_of(*levels: float) -> list[np.ndarray]:
    return [np.full((40, 40), level, np.float32) for level in levels]


def test_steady_removes_what_one_frame_alone_has() -> None:
    assert [mask.max() for mask in steady(masks_of(0, 0, 1, 0, 0, 0))] == [0] * 6


def test_steady_fills_a_frame_that_misses_the_object() -> None:
    assert [mask.min() for mask in steady(masks_of(1, 1, 0, 1, 1))] == [1] * 5


def test_steady_averages_small_steps_alone() -> None:
    middle = [float(mask[0, 0]) for mask in steady(masks_of(0.8, 1, 0.8, 1, 0.8, 1))]
    assert np.ptp(middle[1:-1]) < 0.15
    edge = np.zeros((6, 40, 40), np.float32)
    for i, mask in enumerate(edge):
        mask[:, : 10 + 4 * i] = 1  # an object that moves in
    np.testing.assert_array_equal(list(steady(edge)), edge)


def test_steady_passes_short_runs_on() -> None:
    for count in range(4):
        assert len(list(steady(masks_of(*[1] * count)))) == count


def test_masks_come_back_from_ram_and_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    masks = random.random((5, HEIGHT, WIDTH), np.float32)
    for limit in (occlusion.MAX_RAM_BYTES, 1000):
        monkeypatch.setattr(occlusion, "MAX_RAM_BYTES", limit)
        stored = OcclusionMasks(7, tmp_path)
        for frame, mask in zip((0, 1, 3, 4, 6), masks, strict=True):
            stored.add(frame, mask)
        stored.add(2, np.zeros((HEIGHT, WIDTH), np.float32))
        assert stored[2] is None
        assert stored[5] is None
        for frame, mask in ((6, masks[4]), (0, masks[0]), (3, masks[2])):
            np.testing.assert_allclose(stored[frame], mask, atol=0.5 / occlusion.LEVELS + 1e-6)
        assert np.flatnonzero(stored.is_covered).tolist() == [0, 1, 3, 4, 6]


def test_masks_that_find_no_room_name_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occlusion, "MAX_RAM_BYTES", 10)
    stored = OcclusionMasks(1, tmp_path / "missing")
    with pytest.raises(StorageError, match="missing cannot store the masks"):
        stored.add(0, np.ones((HEIGHT, WIDTH), np.float32))


def test_collect_masks_adds_them_to_a_copy_of_the_track() -> None:
    clip, scores = drawn([None] * 5 + [CHEEK] * 3)
    track = track_of(clip, params={"face": "largest"})
    masked = collect_masks(occlusion_masks(track, Scripted(scores)), track, {"occlusion": "auto"})
    assert track.occlusion is None
    assert masked.params == {"face": "largest", "occlusion": "auto"}
    assert masked.occlusion is not None
    assert np.flatnonzero(masked.occlusion.is_covered).tolist() == [5, 6, 7]
    assert 0.01 < masked.occlusion.coverage[6] < 0.5


def test_visible_face_is_the_mask_in_the_frame() -> None:
    track = track_of(drawn([CHEEK] * 2)[0])
    masks, mask = OcclusionMasks(2), np.zeros((HEIGHT, WIDTH), np.float32)
    mask[CHEEK] = 1
    masks.add(0, mask)
    matrix = track_matrices(track, 256)[0]
    visible = visible_face(masks, 0, matrix, FRAME)
    expected = np.ones(FRAME, np.float32)
    expected[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] -= mask
    np.testing.assert_allclose(visible, expected, atol=1e-4)
    assert visible_face(masks, 1, matrix, FRAME) is None
