"""200 prompts, two ComfyUIs, an hour of video: memory does not grow, and every frame is right."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.stand_in_nodes.networks import Deaf, PoolingCodec
from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.features import AudioSettings, collect_features, extract_features
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.output.video_writer import VideoWriter
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.sampler import build_lip_track, sample_windows
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import build_timeline
from latentsync.video.video_file import VideoFile
from latentsync.weights import random_init
from scripts.comfyui import ComfyUI, ExecutionFailedError
from scripts.sample_clip import Sample, make_sample
from tests.support import graphs
from tests.support.comfyui_server import PACKS, RESOLUTION
from tests.support.synthetic_models import write_models

PROMPTS, WARM = 200, 10
MOST_GROWTH_MB = 100.0  # after the first prompts: an allocator's own ups and downs, half a megabyte a prompt
HOUR_FRAMES, SIDE = 90_000, 64


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_models(tmp_path / "base" / "models", resolution=RESOLUTION)
    return tmp_path / "base"


def kinds(sample: Sample) -> list[graphs.Graph]:
    """Graphs of several kinds: two workflows, other formats, other lengths, and one mistake."""
    video = graphs.changed(
        graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name), "LatentSyncSampler", steps=1
    )
    combine = "LatentSyncVideoCombine"
    pictures = graphs.with_landmarks(graphs.load("lipsync_images"), sample.landmarks.name)
    return [
        graphs.changed(video, combine, filename_prefix="flood/video"),
        graphs.changed(video, combine, filename_prefix="flood/webm", format="webm vp9"),
        graphs.changed(video, combine, filename_prefix="flood/lossless", format="mkv ffv1 lossless", save_record=False),
        graphs.changed(video, "LatentSyncAudioEmbed", silence="keep original"),
        graphs.changed(pictures, "LatentSyncSampler", steps=1),
        graphs.changed(video, "LatentSyncSampler", cfg=float("nan")),
    ]


def seen(process: int) -> tuple[float, int]:
    """Resident memory in MB and open files of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024, len(list(Path(f"/proc/{process}/fd").iterdir()))


def ended_well(server: ComfyUI, prompt_id: str) -> bool:
    """Whether a prompt made a file. The only accepted error is the deliberate mistake."""
    try:
        server.wait(prompt_id, timeout_seconds=600)
    except ExecutionFailedError as error:
        if '"cfg" cannot be nan' not in error.exception_message:
            raise
        return False
    return True


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
def test_200_prompts_do_not_grow_memory(base: Path) -> None:
    sample = make_sample(base / "input", seconds=0.6)
    choice = random.Random(0)
    memory, handles, done, refused = [], [], 0, 0
    with ComfyUI(base, packs=PACKS) as server:
        some = kinds(sample)
        queued = [
            server.queue(graphs.changed(choice.choice(some), "LatentSyncSampler", seed=seed)) for seed in range(PROMPTS)
        ]
        for prompt_id in queued:
            was_made = ended_well(server, prompt_id)
            done, refused = done + was_made, refused + (not was_made)
            megabytes, files = seen(server.pid)
            memory.append(megabytes)
            handles.append(files)
        videos = [path for path in server.output.rglob("*") if path.suffix in (".mp4", ".webm", ".mkv")]
        hidden = list(server.output.rglob(".*"))
    grown = max(memory[-WARM:]) - max(memory[:WARM])
    assert done + refused == PROMPTS
    assert {VideoFile(path).frame_count for path in videos} == {15}
    assert len(videos) == done
    assert not hidden
    assert grown < MOST_GROWTH_MB
    assert handles[-1] <= handles[WARM] + 2


def test_two_comfyuis_share_folders(base: Path) -> None:
    """Both write the same prefix at the same time. Every video is complete and has its own record."""
    sample = make_sample(base / "input", seconds=0.6)
    graph = graphs.changed(
        graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name), "LatentSyncSampler", steps=1
    )
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix="both/clip")
    each = 6
    with ComfyUI(base, packs=PACKS) as one, ComfyUI(base, packs=PACKS) as other:
        queued = [
            (server, server.queue(graphs.changed(graph, "LatentSyncSampler", seed=seed)))
            for seed in range(each)
            for server in (one, other)
        ]
        for server, prompt_id in queued:
            server.wait(prompt_id)
    videos = sorted((base / "output" / "both").glob("*.mp4"))
    records = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in videos]
    assert len(videos) == 2 * each
    assert {VideoFile(path).frame_count for path in videos} == {15}
    assert sorted(record["seed"] for record in records) == sorted([*range(each)] * 2)
    assert [record["output"]["name"] for record in records] == [path.name for path in videos]
    assert not list((base / "output").rglob(".*"))


def bars(number: int) -> np.ndarray:
    """A frame that shows its own number in 17 bars."""
    picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for bit in range(17):
        picture[:8, 3 * bit : 3 * bit + 3] = 255 * (number >> bit & 1)
    return picture


def number_of(frame: np.ndarray) -> int:
    means = [frame[:8, 3 * bit : 3 * bit + 3].mean() for bit in range(17)]
    return sum((mean > 127) << bit for bit, mean in enumerate(means))


def hour(path: Path) -> VideoFile:
    with VideoWriter(path, rate=Fraction(25), height=SIDE, width=SIDE, crf=30) as writer:
        for number in range(HOUR_FRAMES):
            writer.write(bars(number))
    return VideoFile(path)


def long_lips(source: VideoFile, sound: Waveform) -> LipTrack:
    """One step of the stand-in networks over the whole video, with an untrained Whisper of the real size."""
    points = np.tile([[[22.0, 30.0], [42.0, 30.0], [32.0, 42.0]]], (source.frame_count, 1, 1))
    track, codec = FaceTrack(source, points), PoolingCodec()
    driving_audio, settings = prepare_driving_audio(sound), AudioSettings()
    steps = extract_features(driving_audio, random_init.whisper(), settings)
    features, _ = collect_features(steps, driving_audio, settings)
    timeline, sampler = (
        build_timeline(source, sound.duration_seconds),
        SamplerSettings(num_inference_steps=1, guidance_scale=1.0),
    )
    samples = sample_windows(Deaf(), codec, track, features, timeline, sampler, 256)
    return build_lip_track(samples, track, timeline, sound, codec)


def test_one_hour_video_is_exact(tmp_path: Path) -> None:
    source = hour(tmp_path / "hour.mp4")
    rate = 8_000
    time = torch.arange(HOUR_FRAMES * rate // 25) / rate
    sound = Waveform((torch.sin(time * 1000) * torch.sin(time * 3) / 2)[None], rate)
    lips = long_lips(source, sound)
    output = tmp_path / "out.mp4"
    with VideoWriter(
        output, rate=lips.timeline.rate, height=SIDE, width=SIDE, crf=30, waveform=lips.waveform
    ) as writer:
        for made in composite([lips], BlendSettings()):
            writer.write(made.frame)
    video = VideoFile(output)
    assert (video.frame_count, video.duration_seconds) == (HOUR_FRAMES, Fraction(3600))
    wrong = [i for i, frame in enumerate(video.read(range(HOUR_FRAMES))) if number_of(frame) != i]
    assert wrong == []
    assert (lips.latent_index >= 0).all()
