"""Graphs with the nodes of a video helper pack: frames and lazy audio in, frames and audio out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from latentsync.audio.waveform import Waveform
from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample, speech
from tests.support import graphs
from tests.support.comfyui_server import SOURCE_FRAMES

SECONDS = 0.68  # 17 frames, as the landmarks of the sample
SOUND_RATE = 44_100
AAC_PADDING_SAMPLES = 2 * 1024  # what the encoder puts around the sound may be read back with it


def helpers_graph(sample: Sample, video: str, name: str) -> graphs.Graph:
    """The images workflow between the loader and the combiner of a video helper pack."""
    graph = graphs.with_landmarks(graphs.load("lipsync_images"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    images = graphs.node(graph, "LatentSyncToImages")
    for replaced in ("LoadVideo", "LoadAudio", "GetVideoComponents", "CreateVideo", "SaveVideo"):
        del graph[graphs.node(graph, replaced)]
    graph["load"] = {"class_type": "HelperLoadVideo", "inputs": {"video": video}}
    made = {"images": [images, 0], "audio": [images, 2], "frame_rate": [images, 3], "name": name}
    graph["combine"] = {"class_type": "HelperVideoCombine", "inputs": made}
    graph = graphs.changed(graph, "LatentSyncFacePrep", source=["load", 0], image_fps=["load", 3])
    return graphs.changed(graph, "LatentSyncAudioEmbed", audio=["load", 2])


def test_video_helpers_frames_and_lazy_audio_pass_through(comfyui: ComfyUI, sample: Sample) -> None:
    given = list(VideoFile(sample.video).read(range(round(25 * SECONDS))))
    sound = Waveform(torch.from_numpy(speech(SECONDS)).float()[None], SOUND_RATE)
    path = comfyui.input / "talking.mp4"
    with VideoWriter(path, rate=Fraction(25), height=640, width=480, waveform=sound) as writer:
        for frame in given:
            writer.write(frame)
    entry = comfyui.run(helpers_graph(sample, path.name, "helpers"))
    made = np.load(graphs.the_video(comfyui.outputs(entry), ".npz"))
    assert (str(made["images"]), str(made["audio"])) == ("torch.float32", "torch.float32")
    assert (float(made["rate"]), int(made["sound_rate"])) == (25.0, SOUND_RATE)
    assert 0 <= len(made["track"]) - len(speech(SECONDS)) <= AAC_PADDING_SAMPLES
    assert made["frames"].shape[1:] == (640, 480, 3)
    assert len(made["frames"]) == round(25 * len(made["track"]) / SOUND_RATE)
    difference = np.abs(made["frames"][0].astype(int) - given[0]).mean(axis=-1)
    assert np.median(difference) <= 3, "the helper's loader read a lossy copy"
    assert difference.max() > 30, "untrained lips are noise: the mouth must have changed"


def test_video_helpers_unconnected_audio_is_not_read(comfyui: ComfyUI, sample: Sample) -> None:
    """If the audio is connected, ComfyUI 0.30 reads it first and stops at the loader with the loader's error."""
    graph = helpers_graph(sample, sample.video.name, "silent")
    faces = graphs.node(graph, "LatentSyncFacePrep")
    graph = {key: graph[key] for key in ("load", faces, "landmarks")}
    graph["shown"] = {"class_type": "PreviewAny", "inputs": {"source": [faces, 2]}}
    assert f"{SOURCE_FRAMES} of {SOURCE_FRAMES}" in str(comfyui.run(graph)["outputs"]["shown"])
