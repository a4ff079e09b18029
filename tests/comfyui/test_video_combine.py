"""The outputs of Video Combine and To Images in a real ComfyUI."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.audio.reader import read_audio
from latentsync.faces.alignment import track_matrices
from latentsync.faces.face_track import FaceTrack, build_face_track
from latentsync.faces.identities import cluster_tracks, select
from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.faces.precomputed import PrecomputedDetector, from_comfyui, read_json
from latentsync.faces.tracker import track_faces
from latentsync.output.formats import format_named
from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs, procedural, seams
from tests.support.cli_process import record_of
from tests.support.comfyui_server import OUTPUT_FRAMES, RESOLUTION
from tests.support.heads import SIDE_PX, actor, found, staged
from tests.support.wav import make_wav

LOSSLESS = "mkv ffv1 lossless"
SPOKEN_FRAMES = 16


def one_step(name: str, sample: Sample) -> graphs.Graph:
    """An example workflow with one step and the sample's landmarks."""
    graph = graphs.with_landmarks(graphs.load(name), sample.landmarks.name)
    return graphs.changed(graph, "LatentSyncSampler", steps=1)


def may_change(track: FaceTrack, frame: int) -> np.ndarray:
    """bool (H, W): the area of the model's mask in a source frame."""
    matrix = track_matrices(track, RESOLUTION)[frame]
    return seams.in_frame(matrix, (track.source.height, track.source.width), RESOLUTION)


def test_video_combine_restored_crops_are_pasted_back(comfyui: ComfyUI, sample: Sample) -> None:
    path = graphs.the_video(comfyui.outputs(comfyui.run(one_step("lipsync_restored", sample))))
    assert graphs.probe(path).frames == OUTPUT_FRAMES


@pytest.mark.parametrize("form", ["webm vp9", "mov prores 422", LOSSLESS])
def test_video_combine_writes_other_formats_with_record(comfyui: ComfyUI, sample: Sample, form: str) -> None:
    graph = one_step("lipsync_video", sample)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format=form, consent="a test", filename_prefix="formats/x")
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)), format_named(form).suffix)
    assert VideoFile(path).frame_count == OUTPUT_FRAMES
    record: Any = record_of(path.with_suffix(".json"))
    assert record["output"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["inputs"][0]["sha256"] == hashlib.sha256(sample.video.read_bytes()).hexdigest()
    assert (record["consent"], record["model_version"], record["frames"]["total"]) == ("a test", "1.5", OUTPUT_FRAMES)
    assert len(record["model_files"]) == 3, "UNet, Whisper, VAE"
    for item in record["model_files"]:
        assert item["size_bytes"] in [file.stat().st_size for file in comfyui.models.rglob(item["name"])]
    shape = list(read_audio(sample.audio).samples.shape)
    assert record["inputs"][1] == {"role": "audio", "name": "audio", "shape": shape, "dtype": "float32"}
    assert record["settings"]["lips"]["faces"]["face"] == "largest"
    assert record["settings"]["lips"]["timeline"] == {"output_fps": "auto", "length_mode": "audio (ping-pong)"}
    assert path.name.startswith("x_")


def test_to_images_changes_only_the_mouth(comfyui: ComfyUI, sample: Sample) -> None:
    graph = one_step("lipsync_images", sample)
    images, parts = graphs.node(graph, "LatentSyncToImages"), graphs.node(graph, "GetVideoComponents")
    graph["gray"] = {"class_type": "MaskToImage", "inputs": {"mask": [images, 1]}}
    graphs.save(graph, "exact", {"made": [images, 0], "given": [parts, 0], "mask": ["gray", 0]}, first=7, length=3)
    comfyui.run(graph)
    made, given, mask = (graphs.pictures(comfyui.output / "exact", name) for name in ("made", "given", "mask"))
    source = VideoFile(sample.video)
    faces = PrecomputedDetector(from_comfyui(read_json(sample.landmarks), source))
    people = cluster_tracks(source, track_faces(source, faces))
    track = build_face_track(people, select(people))
    for i in range(3):
        changed = (made[i] != given[i]).any(axis=-1)
        assert changed.mean() > 0.01, "untrained lips are noise: the mouth must have changed"
        assert not (changed & ~may_change(track, 7 + i)).any()
        # PNG has 8 bits: a float that differs by less than a level is changed, and looks the same
        assert not (changed & (mask[i][..., 0] == 0)).any()
        assert set(np.unique(mask[i])) == {0, 255}


def test_to_images_gap_keeps_original_frames(comfyui: ComfyUI, sample: Sample) -> None:
    """Frames 4 to 14 show no face: more than max_gap, so the gap is not filled."""
    landmarks = json.loads(sample.landmarks.read_text(encoding="utf-8"))
    landmarks["frames"][4:15] = [[]] * 11
    (comfyui.input / "gap.json").write_text(json.dumps(landmarks), encoding="utf-8")
    graph = graphs.changed(one_step("lipsync_images", sample), "LatentSyncDemoLandmarks", file="gap.json")
    images, parts = graphs.node(graph, "LatentSyncToImages"), graphs.node(graph, "GetVideoComponents")
    graph["gray"] = {"class_type": "MaskToImage", "inputs": {"mask": [images, 1]}}
    graphs.save(graph, "gap", {"made": [images, 0], "given": [parts, 0], "mask": ["gray", 0]}, first=3, length=3)
    comfyui.run(graph)
    made, given, mask = (graphs.pictures(comfyui.output / "gap", name) for name in ("made", "given", "mask"))
    assert (made[0] != given[0]).any()
    for i in (1, 2):
        np.testing.assert_array_equal(made[i], given[i])
        assert mask[i].max() == 0, "the mask is of the floats themselves: not a bit differs"


def test_video_combine_two_speakers_in_one_pass(
    comfyui: ComfyUI, sample: Sample, shared: Path, detector: MediaPipeDetector
) -> None:
    """Each speaker has a recording. Both mouths change, nothing else does, and the audio is the mix."""
    video, voices = two_people(comfyui.input, shared), two_voices(comfyui.input)
    graph = graphs.changed(graphs.load("lipsync_two_speakers"), "LoadVideo", file=video.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format=LOSSLESS)
    for node, voice in zip(graphs.nodes(graph, "LoadAudio"), voices, strict=True):
        graph[node]["inputs"]["audio"] = voice.name
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv")
    made, source = VideoFile(path), VideoFile(video)
    assert made.frame_count == source.frame_count == SPOKEN_FRAMES
    people = found(source, detector)
    tracks = [build_face_track(people, select(people, order)) for order in ("leftmost", "rightmost")]
    everything = range(SPOKEN_FRAMES)
    for i, frame, original in zip(everything, made.read(everything), source.read(everything), strict=True):
        changed = (frame != original).any(axis=-1)
        mouths = [may_change(track, i) for track in tracks]
        assert all((changed & mouth).sum() > mouth.sum() / 2 for mouth in mouths)
        assert not (changed & ~mouths[0] & ~mouths[1]).any()
    left, right = (read_audio(voice).samples for voice in voices)
    assert torch.equal(read_audio(path).samples, left + right)


def two_people(folder: Path, shared: Path) -> Path:
    """Two heads side by side, as long as their recordings."""
    still = np.zeros(SPOKEN_FRAMES)
    clip = staged(actor(shared, "demo1", still), actor(shared, "demo2", still + SIDE_PX), width=2 * SIDE_PX)
    size = {"height": SIDE_PX, "width": 2 * SIDE_PX}
    with VideoWriter(folder / "two people.mp4", rate=Fraction(25), crf=10, **size) as writer:
        for frame in clip.frames:
            writer.write(frame)
    return writer.path


def two_voices(folder: Path) -> list[Path]:
    """Two recordings whose sum never clips."""
    paths = [folder / "left voice.wav", folder / "right voice.wav"]
    spoken = procedural.speech(SPOKEN_FRAMES / 25)
    for path, samples in zip(paths, (spoken, np.roll(spoken, 3000)), strict=True):
        make_wav(path, 2**14 * samples[None], 16000)
    return paths
