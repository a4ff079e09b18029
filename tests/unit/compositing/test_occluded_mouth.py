"""Objects in front of the original face stay in front of the new mouth."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.waveform import Waveform
from latentsync.compositing import compositor
from latentsync.compositing.color_match import ColorMatcher
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BLENDERS, BlendSettings
from latentsync.faces.alignment import track_matrices
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.occlusion import MASK_SIZE, OcclusionMasks, visible_face
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support import alignment_golden as golden
from tests.support.image_clip import Clip

CASE = golden.CASES[0]
FRAMES = 3
ORDER = (0, 1, 2, 1)  # of a video that plays back and forth
SIZE = MASK_SIZE[::-1]


def speaker(occlusion: OcclusionMasks | None) -> LipTrack:
    clip = Clip(np.stack([golden.frame(CASE, i) for i in range(FRAMES)]))
    track = FaceTrack(clip, golden.points(CASE)[:FRAMES], occlusion=occlusion)
    latents = torch.randn(len(ORDER), 4, 32, 32, generator=torch.Generator().manual_seed(1)).half()
    waveform = Waveform(torch.zeros(1, 16000), 16000)
    return LipTrack(track, Timeline(Fraction(25), ORDER), latents, np.arange(len(ORDER)), waveform, random_init.vae())


def right_half(*frames: int) -> OcclusionMasks:
    masks, mask = OcclusionMasks(FRAMES), np.zeros(SIZE, np.float32)
    mask[:, MASK_SIZE[0] // 2 :] = 1
    for frame in frames:
        masks.add(frame, mask)
    return masks


def composed(lips: LipTrack, settings: BlendSettings, protect: np.ndarray | None = None) -> list[np.ndarray]:
    return [frame for frame, _ in composite([lips], settings, protect)]


@pytest.mark.parametrize("mode", BLENDERS)
def test_compositor_keeps_objects_of_their_source_frame(mode: str) -> None:
    settings = BlendSettings(mode, color_match=False)
    masks = right_half(1)
    lips = speaker(masks)
    free, covered = composed(speaker(None), settings), composed(lips, settings)
    matrix = track_matrices(lips.face_track, 256)[1]
    for i, source_frame in enumerate(ORDER):
        original = lips.face_track.source.frames[source_frame]
        if source_frame != 1:
            np.testing.assert_array_equal(covered[i], free[i])
            continue
        visible = visible_face(masks, 1, matrix, original.shape[:2])
        assert visible is not None
        np.testing.assert_array_equal(covered[i][visible == 0], original[visible == 0])
        np.testing.assert_array_equal(covered[i][visible == 1], free[i][visible == 1])
        assert (free[i] != original)[visible == 0].any()


def test_compositor_without_objects_gives_the_same_bytes() -> None:
    for settings in (BlendSettings(), BlendSettings(match_texture=True)):
        pairs = zip(composed(speaker(None), settings), composed(speaker(right_half()), settings), strict=True)
        for free, searched in pairs:
            np.testing.assert_array_equal(free, searched)


def test_compositor_merges_objects_with_the_protect_mask() -> None:
    lips = speaker(right_half(0, 1, 2))
    original = lips.face_track.source.frames[0]
    protect = np.zeros((1, *original.shape[:2]), np.float32)
    middle = int(golden.points(CASE)[0, 2, 1]) + 30
    protect[:, middle:] = 1
    settings = BlendSettings(color_match=False)
    both, objects = composed(lips, settings, protect)[0], composed(lips, settings)[0]
    np.testing.assert_array_equal(both[middle:], original[middle:])
    np.testing.assert_array_equal(both[:middle], objects[:middle])
    assert (objects[middle:] != original[middle:]).any()


def test_color_match_ignores_objects() -> None:
    """A green object covers the right half of the face: the correction is that of the left half."""
    lips = speaker(right_half(0))
    matrix = track_matrices(lips.face_track, 256)[0]
    frame = lips.face_track.source.frames[0].copy()
    masks = lips.face_track.occlusion
    assert masks is not None
    visible = visible_face(masks, 0, matrix, frame.shape[:2])
    assert visible is not None
    face = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1
    matcher = ColorMatcher(256)
    clean = matcher.match_color(face, frame, matrix, visible)
    green = np.where(visible[..., None] < 1, np.array([0, 255, 0], np.uint8), frame)
    covered, fooled = matcher.match_color(face, green, matrix, visible), matcher.match_color(face, green, matrix)
    torch.testing.assert_close(covered.offset, clean.offset, atol=0.01, rtol=0)
    torch.testing.assert_close(covered.gain, clean.gain, atol=0.02, rtol=0)
    assert (fooled.offset - clean.offset).abs().max() > 0.1
    assert matcher.match_color(face, green, matrix, np.zeros_like(visible)) is None


def test_color_match_needs_enough_visible_skin(caplog: pytest.LogCaptureFixture) -> None:
    """An object hides almost all of the face in source frame 1. Its output frames keep the correction before them."""
    masks = OcclusionMasks(FRAMES)
    few = np.ones(SIZE, np.float32)
    few[:, :3] = 0
    masks.add(1, few)
    lips = speaker(masks)
    matcher, frame = ColorMatcher(256), lips.face_track.source.frames[1]
    matrix = track_matrices(lips.face_track, 256)[1]
    face = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert matcher.match_color(face, frame, matrix, visible_face(masks, 1, matrix, frame.shape[:2])) is None
    paster = compositor._FacePaster(lips, BlendSettings())
    with caplog.at_level(logging.INFO, compositor.__name__):
        first, *others = (paster._match_color(i, face, lips.face_track.source.frames[ORDER[i]]) for i in (1, 0, 1, 3))
    np.testing.assert_array_equal(first, face)
    assert not torch.equal(others[0], face)
    torch.testing.assert_close(others[1], others[0])
    np.testing.assert_array_equal(others[2], face)
    assert len(caplog.records) == 1
    assert "Output frame 1 shows too little skin" in caplog.text


def test_color_match_in_the_compositor_ignores_objects() -> None:
    lips = speaker(right_half(0))
    source = lips.face_track.source
    matrix = track_matrices(lips.face_track, 256)[0]
    visible = visible_face(right_half(0), 0, matrix, (source.height, source.width))
    assert visible is not None
    frames = source.frames.copy()
    frames[0] = np.where(visible[..., None] < 1, np.array([0, 255, 0], np.uint8), frames[0])
    track = replace(lips.face_track, source=Clip(frames))
    covered, clean = composed(replace(lips, face_track=track), BlendSettings())[0], composed(lips, BlendSettings())[0]
    difference = np.abs(covered.astype(int) - clean)[visible == 1]
    assert difference.max() <= 3
