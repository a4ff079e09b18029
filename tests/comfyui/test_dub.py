"""Features for dubs in a real ComfyUI: a stretched video, background audio, texture, and the person who speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentsync.audio.reader import read_audio
from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI, ExecutionFailedError, InvalidPromptError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.grain import CHIN, FOREHEAD, detail, write_grainy
from tests.support.two_people import LEFT_NOSE, write_talking_pair
from tests.support.wav import make_wav

FACE_PREP, SAMPLER, COMBINE = "LatentSyncFacePrep", "LatentSyncSampler", "LatentSyncVideoCombine"
LOSSLESS = "mkv ffv1 lossless"
STRETCHED = "audio (stretch video)"
RATE = 16_000
ABOVE_THE_MOUTH = slice(0, 120)  # rows of the sample clip


@pytest.fixture
def graph(sample: Sample) -> graphs.Graph:
    graph = graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name)
    return graphs.changed(graphs.changed(graph, SAMPLER, steps=1), COMBINE, format=LOSSLESS)


def write_noise(path: Path, seconds: float, channels: int = 1) -> Path:
    return make_wav(path, np.random.default_rng(4).uniform(-3276, 3276, (channels, round(seconds * RATE))), RATE)


def test_dub_stretches_the_video_over_a_background(comfyui: ComfyUI, sample: Sample, graph: graphs.Graph) -> None:
    """17 frames become 20. The speech begins after 0.5 s: then the background is 20 dB quieter."""
    speech = graphs.write_speech(comfyui.input / "late.wav", (0.5, False), (0.3, True))
    room = write_noise(comfyui.input / "room.wav", 1.5)
    graph = graphs.changed(graphs.changed(graph, "LoadAudio", audio=speech.name), SAMPLER, length_mode=STRETCHED)
    graph["room"] = {"class_type": "LoadAudio", "inputs": {"audio": room.name}}
    graph = graphs.changed(graph, COMBINE, background=["room", 0], background_gain_db=-6.0, ducking_db=20.0)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv")
    made, source = (list(VideoFile(file).read(range(count))) for file, count in ((path, 20), (sample.video, 17)))
    assert VideoFile(path).frame_count == 20
    for i, frame in enumerate(made):
        same = [j for j in range(17) if np.array_equal(frame[ABOVE_THE_MOUTH], source[j][ABOVE_THE_MOUTH])]
        assert same == [min(int(i * 17 / 20 + 0.5), 16)], f"frame {i} is the nearest in time"
    mix, voice, under = (read_audio(file).samples[0].numpy() for file in (path, speech, room))
    assert len(mix) == len(voice), "the background does not make the result longer"
    is_loud = np.abs(under[: len(mix)]) > 0.05
    gain = np.where(is_loud, (mix - voice) / np.where(is_loud, under[: len(mix)], 1), np.nan)
    before, during = gain[: round(0.15 * RATE)], gain[round(0.6 * RATE) : round(0.75 * RATE)]
    np.testing.assert_allclose(before[np.isfinite(before)], 10 ** (-6 / 20), rtol=1e-3)
    assert np.nanmedian(during) == pytest.approx(10 ** (-26 / 20), rel=0.02)


def test_match_texture_adds_the_grain_of_the_face(comfyui: ComfyUI, sample: Sample) -> None:
    """A restorer makes smooth crops of grainy footage. Both results come from the same lips."""
    grainy = write_grainy(sample, comfyui.input / "grainy.mkv")
    graph = graphs.with_landmarks(graphs.load("lipsync_restored"), sample.landmarks.name)
    graph = graphs.changed(graphs.changed(graph, "LoadVideo", file=grainy.name), SAMPLER, steps=1)
    graph = graphs.changed(graph, COMBINE, format=LOSSLESS, filename_prefix="texture/off", match_texture=False)
    restorer, combine = graphs.node(graph, "ImageSharpen"), graphs.node(graph, COMBINE)
    graph[restorer]["class_type"] = "ImageBlur"
    graph[restorer]["inputs"] |= {"blur_radius": 9, "sigma": 6.0}
    same = graph[combine]["inputs"] | {"filename_prefix": "texture/on", "match_texture": True}
    graph["on"] = {"class_type": COMBINE, "inputs": same}
    on, off = sorted(path for path in comfyui.outputs(comfyui.run(graph)) if path.suffix == ".mkv")[::-1]
    frames = [list(VideoFile(path).read(range(2, 10))) for path in (on, off)]
    skin, matched, smooth = detail(frames[0], FOREHEAD), detail(frames[0], CHIN), detail(frames[1], CHIN)
    assert smooth < 0.2 * skin
    assert 0.5 * skin < matched < 1.5 * skin
    grain = [frames[0][i][CHIN].astype(int) - frames[1][i][CHIN] for i in (0, 1)]
    assert abs(np.corrcoef(grain[0].ravel(), grain[1].ravel())[0, 1]) < 0.3, "the grain is not frozen"
    for one, other in zip(*frames, strict=True):
        np.testing.assert_array_equal(one[ABOVE_THE_MOUTH], other[ABOVE_THE_MOUTH])


def test_face_prep_selects_who_speaks_or_who_is_there(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    """The sound of the video follows the mouth on the right. A point selects the person on the left."""
    video, landmarks = write_talking_pair(comfyui.input)
    graph = graphs.with_landmarks(graphs.changed(graph, "LoadVideo", file=video.name), landmarks.name)
    graph = graphs.changed(graphs.changed(graph, SAMPLER, preview_seconds=0.2), FACE_PREP, face="speaking")
    x, y = LEFT_NOSE
    original = next(iter(VideoFile(video).read([0])))
    for face_at, side in (("", 1), (f"{x}, {y}, 0", 0)):
        entry = comfyui.run(graphs.changed(graph, FACE_PREP, face_at=face_at))
        frame = next(iter(VideoFile(graphs.the_video(comfyui.outputs(entry), ".mkv")).read([0])))
        halves = np.split((frame != original).any(axis=-1), 2, axis=1)
        assert (halves[side].sum() > 500, halves[1 - side].any()) == (True, False), side
    with pytest.raises(ExecutionFailedError, match="shows no face at that point") as failed:
        comfyui.run(graphs.changed(graph, FACE_PREP, face_at="5, 5, 0"))
    assert failed.value.node_type == FACE_PREP


@pytest.mark.parametrize(
    ("node", "inputs", "sentence"),
    [
        (FACE_PREP, {"face": "speaking"}, '"face" is set to speaking, but latentsync_sample.mp4 has no sound'),
        (FACE_PREP, {"face_at": "left"}, '"face_at" cannot be left.'),
        (SAMPLER, {"length_mode": STRETCHED}, "allows 0.8 to 1.25"),
        (COMBINE, {"background": ["six", 0], "audio": ["two", 0]}, '"background" has 6 channels, and the speech has 2'),
    ],
    ids=["speaking", "face_at", "stretch", "background"],
)
def test_dub_wrong_input_gives_one_sentence(
    comfyui: ComfyUI, graph: graphs.Graph, node: str, inputs: dict[str, object], sentence: str
) -> None:
    for name, channels in (("two", 2), ("six", 6)):
        file = write_noise(comfyui.input / f"{name} channels.wav", 1.0, channels)
        graph[name] = {"class_type": "LoadAudio", "inputs": {"audio": file.name}}
    with pytest.raises(ExecutionFailedError) as failed:
        comfyui.run(graphs.changed(graph, node, **inputs))
    assert failed.value.node_type == node
    assert sentence in failed.value.exception_message


@pytest.mark.parametrize("inputs", [{"background_gain_db": 40.5}, {"ducking_db": -0.5}, {"length_mode": "remap"}])
def test_dub_value_out_of_range_does_not_start(
    comfyui: ComfyUI, graph: graphs.Graph, inputs: dict[str, object]
) -> None:
    (name,) = inputs
    with pytest.raises(InvalidPromptError, match=name):
        comfyui.queue(graphs.changed(graph, SAMPLER if name == "length_mode" else COMBINE, **inputs))
