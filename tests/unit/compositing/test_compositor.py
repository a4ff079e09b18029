"""Composite one or two speakers: their mouths change and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import (
    DECODE_FRAMES,
    ProtectMask,
    composite,
    decode_crops,
    is_continuous,
    shared_timeline,
)
from latentsync.compositing.mouth_blend import MouthBlender
from latentsync.compositing.settings import BLENDERS, BlendSettings, MaskEdge
from latentsync.errors import MediaError, UsageError
from latentsync.faces.alignment import affine_matrices, crop, crop_size
from latentsync.faces.face_track import FaceTrack
from latentsync.models.constants import LATENT_SCALE
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support import alignment_golden as golden
from tests.support import seams
from tests.support.image_clip import Clip

CASE = golden.CASES[0]
FRAMES = 6
SETTINGS = BlendSettings()


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Two copies of each image side by side, for two faces."""
    return Clip(np.stack([np.concatenate([golden.frame(CASE, i)] * 2, axis=1) for i in range(FRAMES)]))


def points(side: int) -> np.ndarray:
    shift = np.array([side * CASE["width"], 0])
    return golden.points(CASE)[:FRAMES] + shift


def speaker(clip: Clip, side: int, count: int = FRAMES) -> LipTrack:
    """Random latents and a real decoder. The second frame has no new lips."""
    latent_index = np.array([0, -1, *range(1, count - 1)])
    latents = torch.randn(count - 1, 4, 32, 32, generator=torch.Generator().manual_seed(side)).half()
    timeline = Timeline(Fraction(25), tuple(range(count)))
    waveform = Waveform(torch.zeros(1, 16000), 16000)
    return LipTrack(FaceTrack(clip, points(side)), timeline, latents, latent_index, waveform, random_init.vae())


def allowed(clip: Clip, side: int, i: int) -> np.ndarray:
    matrix = affine_matrices(points(side), 256)[i]
    return seams.in_frame(matrix, (clip.height, clip.width), 256)


def test_compositor_changes_only_the_mouth(clip: Clip) -> None:
    composites = list(composite([speaker(clip, 0)], SETTINGS))
    assert len(composites) == FRAMES
    assert composites[1].frame is composites[1].source
    for i in (0, 2, 5):
        changed = (composites[i].frame != clip.frames[i]).any(axis=-1)
        assert changed.any()
        assert not (changed & ~allowed(clip, 0, i)).any()


def test_compositor_two_speakers_change_only_their_mouths(clip: Clip) -> None:
    both = list(composite([speaker(clip, 0), speaker(clip, 1, count=4)], SETTINGS))
    alone = list(composite([speaker(clip, 0)], SETTINGS))
    assert len(both) == FRAMES
    for i in range(FRAMES):
        changed = (both[i].frame != clip.frames[i]).any(axis=-1)
        second = allowed(clip, 1, i)
        assert not (changed & ~allowed(clip, 0, i) & ~second).any()
        assert (changed & second).any() == (i in (0, 2, 3)), "the second recording is shorter"
        np.testing.assert_array_equal(both[i].frame[~second], alone[i].frame[~second])


@pytest.mark.parametrize("mode", BLENDERS)
def test_compositor_keeps_protected_pixels(clip: Clip, mode: str) -> None:
    middle = int(np.median(np.nonzero(allowed(clip, 0, 0))[1]))
    protect = np.zeros((1, clip.height, clip.width), np.float32)
    protect[:, :, middle:] = 1
    frame, _ = next(composite([speaker(clip, 0)], BlendSettings(mode), protect))
    np.testing.assert_array_equal(frame[:, middle:], clip.frames[0][:, middle:])
    assert not np.array_equal(frame, clip.frames[0])


def test_compositor_new_blend_mode_is_one_registry_row(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inverted(MouthBlender):
        def prepare(self, faces: list[torch.Tensor], *_: object) -> list[torch.Tensor]:
            return [-face for face in faces]

    with pytest.raises(UsageError, match=r'"paste_mode" cannot be inverted. Choose one of mouth, full crop.'):
        BlendSettings("inverted")
    monkeypatch.setitem(BLENDERS, "inverted", Inverted)
    settings = [BlendSettings(mode, color_match=False) for mode in ("mouth", "inverted")]
    mouth, inverted = (next(composite([speaker(clip, 0)], s)).frame for s in settings)
    assert not np.array_equal(mouth, inverted)


def test_compositor_crops_are_upright_and_come_back(clip: Clip) -> None:
    lips = speaker(clip, 0)
    crops = torch.from_numpy(np.stack(list(decode_crops(lips))))
    width, height = crop_size(256)
    assert crops.shape == (FRAMES - 1, height, width, 3)
    assert 0 <= float(crops.min()) < float(crops.max()) <= 1
    plain = BlendSettings(color_match=False)
    original = next(composite([lips], plain)).frame.astype(int)
    back = next(composite([replace(lips, crops=crops)], plain)).frame.astype(int)
    gray = next(composite([replace(lips, crops=torch.full((FRAMES - 1, 50, 40, 3), 0.5))], plain)).frame.astype(int)
    changed = (original != clip.frames[0]).any(axis=-1)
    # Noise that is resampled once more differs. Gray differs by far more.
    assert np.abs(back - original)[changed].mean() < np.abs(gray - original)[changed].mean()
    assert set(np.unique(gray[seams.in_frame(affine_matrices(points(0), 256)[0], original.shape[:2], 256)])) >= {127}


class QueuedVAE:
    """A VAE that notes the order of its calls and of the waits for their results."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        number, events = len([event for event in self.events if "launch" in event]), self.events
        events.append(f"launch {number}")

        class Pending(torch.Tensor):
            def cpu(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
                events.append(f"wait {number}")
                return self.as_subclass(torch.Tensor)

        return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3).as_subclass(Pending)


def test_compositor_decodes_while_faces_are_pasted(clip: Clip) -> None:
    """The VAE's next call is made as soon as the last one is finished, before its first face is used."""
    events: list[str] = []
    count = 2 * DECODE_FRAMES + 1
    lips = speaker(clip, 64)
    latents = torch.zeros(count, 4, 8, 8, dtype=torch.float16)
    latents[:, 0, 0, 0] = torch.arange(count) / 512  # faces end at 1
    faces = decode_crops(replace(lips, latents=latents, vae=QueuedVAE(events)))
    values = []
    for face in faces:
        events.append("use")
        values.append(float(face[0, 0, 0]))
    order = [event for i, event in enumerate(events) if event != events[i - 1] or i == 0]
    assert order == ["launch 0", "wait 0", "launch 1", "use", "wait 1", "launch 2", "use", "wait 2", "use"]
    assert values == sorted(set(values))
    assert len(values) == count


def test_compositor_names_speakers_that_do_not_fit(clip: Clip) -> None:
    for other in (Clip(clip.frames[:, :-2], name="another clip"), Clip(clip.frames.copy(), name="another clip")):
        with pytest.raises(UsageError, match=f"Speaker 1: {clip.name}. Speaker 2: another clip"):
            shared_timeline([speaker(clip, 0), speaker(other, 0)])
    slower = replace(speaker(clip, 0), timeline=Timeline(Fraction(24), tuple(range(FRAMES))))
    with pytest.raises(UsageError, match=r"Speaker 1: 25 fps, 6 frames\. Speaker 2: 24 fps, 6 frames"):
        shared_timeline([speaker(clip, 0), slower])
    with pytest.raises(UsageError, match="at least one speaker"):
        shared_timeline([])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 512, 500), '"protect_mask" is 500 x 512, but the video is 960 x 360. .* each of the 6 frames'),
        ((2, 360, 960), '"protect_mask" has 2 masks, but the video has 6 frames'),
        ((360, 960), '"protect_mask" is not a batch of masks'),
    ],
)
def test_protect_mask_of_other_size_is_refused(clip: Clip, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next(composite([speaker(clip, 0)], SETTINGS, np.zeros(shape, np.float32)))


def test_protect_mask_gives_opacity_of_its_frame() -> None:
    source = Clip(np.zeros((2, 1, 1, 3), np.uint8))
    assert ProtectMask(None, source).opacity(1) == 1
    protect = np.array([0.25, 2], np.float16).reshape(2, 1, 1)
    mask = ProtectMask(protect, source)
    np.testing.assert_array_equal(mask.opacity(0), [[0.75]])
    np.testing.assert_array_equal(mask.opacity(1), [[0]])
    np.testing.assert_array_equal(ProtectMask(protect[:1], source).opacity(1), [[0.75]])
    with pytest.raises(UsageError, match="NaN or infinite"):
        ProtectMask(np.full((1, 1, 1), np.nan), source)


def test_compositor_nan_face_names_its_frame_and_cause(clip: Clip) -> None:
    crops = torch.zeros(FRAMES - 1, 8, 8, 3)
    crops[1] = torch.nan
    with pytest.raises(
        MediaError, match=r"output frame 2 contains NaN or infinite values. Check the node that changed the crops"
    ):
        list(composite([replace(speaker(clip, 0), crops=crops)], SETTINGS))


def test_lip_track_with_wrong_number_of_crops_is_refused(clip: Clip) -> None:
    with pytest.raises(UsageError, match="but Crops Out made 5 RGB crops"):
        replace(speaker(clip, 0), crops=torch.zeros(2, 8, 8, 3))


class Tinted:
    """A VAE that decodes the original crops with a color cast: the latents hold the frame index i, and `tints[i]` is
    added."""

    def __init__(self, clip: Clip, tints: list[float]) -> None:
        matrices = affine_matrices(points(0), 256)
        self.crops = [torch.from_numpy(crop(frame, matrices[i], 256)) for i, frame in enumerate(clip.frames)]
        self.tints = tints

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        frames = (latents[:, 0, 0, 0] * LATENT_SCALE).round().int().tolist()
        return torch.stack([self.crops[i] / 127.5 - 1 + self.tints[i] for i in frames])


def tinted(clip: Clip, tints: list[float], cuts: tuple[int, ...] = ()) -> LipTrack:
    numbers = torch.arange(float(FRAMES))[:, None, None, None].expand(-1, 4, 32, 32).half()
    track = FaceTrack(clip, points(0), cuts)
    timeline = Timeline(Fraction(25), tuple(range(FRAMES)))
    waveform = Waveform(torch.zeros(1, 16000), 16000)
    return LipTrack(track, timeline, numbers, np.arange(FRAMES), waveform, Tinted(clip, tints))


def cast(clip: Clip, lips: LipTrack, *, color_match: bool) -> list[float]:
    """Mean difference between new and original mouth in each frame, in levels."""
    composites = composite([lips], BlendSettings(edge=MaskEdge(feather=0), color_match=color_match))
    return [
        float((frame.astype(float) - source)[allowed(clip, 0, i)].mean())
        for i, (frame, source) in enumerate(composites)
    ]


def test_compositor_removes_color_cast(clip: Clip) -> None:
    red = [0.1] * FRAMES  # 13 levels
    assert min(cast(clip, tinted(clip, red), color_match=False)) > 8
    assert max(map(abs, cast(clip, tinted(clip, red), color_match=True))) < 2
    neutral = (cast(clip, tinted(clip, [0.0] * FRAMES), color_match=match) for match in (True, False))
    np.testing.assert_allclose(*neutral, atol=0.5)


def test_compositor_color_match_restarts_at_a_cut(clip: Clip) -> None:
    """Only the first shot has the cast. Without a restart, its correction would tint the second shot."""
    tints = [0.1] * 3 + [0.0] * 3
    assert abs(cast(clip, tinted(clip, tints, cuts=(3,)), color_match=True)[3]) < 2
    assert abs(cast(clip, tinted(clip, tints), color_match=True)[3]) > 4, "within a shot, the correction is smoothed"


def test_is_continuous_breaks_at_cuts_and_jumps(clip: Clip) -> None:
    lips = tinted(clip, [0.0] * FRAMES, cuts=(3,))
    assert is_continuous(lips).tolist() == [False, True, True, False, True, True]
    jump = replace(tinted(clip, [0.0] * FRAMES), timeline=Timeline(Fraction(25), (0, 0, 1, 3, 0, 1)))
    assert is_continuous(jump).tolist() == [False, True, True, True, False, True], "two frames are 80 ms, three 120 ms"
