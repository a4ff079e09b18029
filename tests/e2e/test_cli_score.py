"""`score`, and `run` with takes: files in, numbers out, or one line on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentsync import LipSyncPipeline, SamplerSettings, pipeline
from latentsync.cli import faces
from latentsync.cli.main import main
from latentsync.weights.catalog import STABLE_SYNCNET, SYNCNET
from scripts.sample_clip import Sample, camera_path, face_landmarks, write_video
from tests.support.image_clip import decoded
from tests.support.paths import REPOSITORY
from tests.support.real_clips import check_score
from tests.support.synthetic_models import write_syncnet
from tests.support.wav import make_wav

FRAMES = 10  # of the clip `good`


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with untrained weights of SyncNet alone."""
    folder = tmp_path_factory.mktemp("syncnet")
    write_syncnet(folder)
    return folder


def score(good: Sample, models: Path, *more: object, landmarks: Path | None = None) -> int:
    given = ["score", good.video, "--face-landmarks", landmarks or good.landmarks, "--models", models, *more]
    return main([*map(str, given)])


def arguments(good: Sample, output: Path, models: Path, *more: object) -> list[str]:
    given = ["run", good.video, good.audio, "-o", output, "--miniature", "--steps", 1, "--cfg", 1]
    return [*map(str, [*given, "--face-landmarks", good.landmarks, "--models", models, *more])]


def run(good: Sample, output: Path, models: Path, *more: object) -> int:
    return main(arguments(good, output, models, *more))


def test_score_prints_numbers_and_draws_a_chart(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chart = tmp_path / "chart.png"
    assert score(good, models, "--audio", good.audio, "--json", "-o", chart) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["person"], report["people"]) == (1, 1)
    assert report["sync"]["windows"] == FRAMES - 5
    assert not report["sync"]["trusted"]
    assert len(report["sync"]["distance_by_offset"]) == 31
    assert report["sync"]["distance"] == min(report["sync"]["distance_by_offset"])
    assert report["lip_leak"]["silent_frames"] <= FRAMES
    assert Image.open(chart).size == (1024, 408)
    assert score(good, models, "--audio", good.audio) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{good.video.name}: person 1 of 1\n  Sync confidence {report['sync']['confidence']:.2f}")
    assert "too short to trust" in said


def test_score_without_weights_measures_lip_leak(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(good, tmp_path, "--audio", good.audio, "--json") == 0
    told = capsys.readouterr()
    assert (
        f'latentsync download syncnet --models "{tmp_path}" to download them (55 MB, research use, CC-BY)' in told.err
    )
    report = json.loads(told.out)
    assert report["sync"] is None
    assert report["lip_leak"] is not None


def test_score_of_silent_sound_is_an_answer(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_wav(tmp_path / "silent.wav", np.zeros((1, 16_000)), 16_000)
    assert score(good, models, "--audio", tmp_path / "silent.wav") == 0
    assert "of the 10 frames with silence (LipLeak)" in capsys.readouterr().out


def test_score_measures_60_fps_at_25(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cameras, video, landmarks = camera_path(60), tmp_path / "60.mp4", tmp_path / "60.json"
    write_video(video, cameras, Fraction(60))
    landmarks.write_text(json.dumps(face_landmarks(cameras)), encoding="utf-8")
    make_wav(tmp_path / "silent.wav", np.zeros((1, 16_000)), 16_000)
    sound = ("--audio", tmp_path / "silent.wav", "--models", tmp_path)
    assert main([*map(str, ["score", video, "--face-landmarks", landmarks, *sound, "--json"])]) == 0
    assert json.loads(capsys.readouterr().out)["lip_leak"]["silent_frames"] == 25


def test_score_chooses_among_two_people(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(good.landmarks.read_text(encoding="utf-8"))
    for faces_of_frame in content["frames"]:
        points = np.array(faces_of_frame[0]["landmarks_xy"])
        faces_of_frame.append({**faces_of_frame[0], "landmarks_xy": (points * 0.2 + [350, 20]).tolist()})
    two = tmp_path / "two.json"
    two.write_text(json.dumps(content), encoding="utf-8")
    assert score(good, models, "--audio", good.audio, "--json", "--face-index", 1, landmarks=two) == 0
    first = json.loads(capsys.readouterr().out)
    assert score(good, models, "--audio", good.audio, "--json", "--face-index", 2, landmarks=two) == 0
    second = json.loads(capsys.readouterr().out)
    assert (first["people"], second["person"], second["people"]) == (2, 2, 2)
    assert first["sync"]["distance"] != second["sync"]["distance"]


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("latentsync: ")]
    return line


def test_score_names_what_is_wrong(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(good, models) == 1
    assert "has no audio. Choose a recording, or a video with sound." in refused(capsys)
    nobody = tmp_path / "nobody.json"
    nobody.write_text(json.dumps({"frames": [[]], "image_size": [640, 480]}), encoding="utf-8")
    assert score(good, models, "--audio", good.audio, landmarks=nobody) == 1
    assert "found no face in any of them" in refused(capsys)
    make_wav(tmp_path / "blip.wav", np.ones((1, 2_000)), 16_000)
    assert score(good, models, "--audio", tmp_path / "blip.wav") == 1
    assert "is too short to score. It has 3 frames at 25 fps and 0.12 s of sound" in refused(capsys)
    assert score(good, models, "--audio", good.audio, "-o", "chart.gif") == 2
    assert "does not end in .png" in refused(capsys)
    assert score(good, models, "--audio", good.audio, "--stable-syncnet") == 1
    assert f"{models / STABLE_SYNCNET.path} is missing" in refused(capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"words", "is not a checkpoint, or contains data that is not weights"),
        (b"\0" * SYNCNET.size_bytes, "cannot be read as weights"),
        ({"weights": torch.zeros(3)}, "is not the official syncnet_v2.model"),
    ],
    ids=["short", "right size", "other network"],
)
def test_score_refuses_other_files_as_weights(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, said: str
) -> None:
    path = tmp_path / SYNCNET.path
    path.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert score(good, tmp_path, "--audio", good.audio) == 1
    assert said in refused(capsys)


def test_score_video_of_the_library(shared: Path, tmp_path: Path) -> None:
    check_score(shared, tmp_path, "demo1", 250)


@pytest.mark.usefixtures("stand_in_networks")
def test_run_takes_keep_the_best(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    assert run(good, output, models, "--takes", 3, "--seed", 5, "--crf", 0) == 0
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    takes = {take["seed"]: take["confidence"] for take in record["takes"]}
    assert list(takes) == [5, 6, 7]
    assert len(set(takes.values())) == 3
    for seed, confidence in takes.items():
        assert f"seed {seed}: sync confidence {confidence:.2f}" in said
    best = max(takes, key=lambda seed: takes[seed])
    assert record["seed"] == best
    alone = tmp_path / "alone.mp4"
    assert run(good, alone, models, "--seed", best, "--crf", 0) == 0
    same = [decoded(path, FRAMES) for path in (output, alone)]
    np.testing.assert_array_equal(*same)
    assert json.loads((tmp_path / "alone.json").read_text(encoding="utf-8"))["takes"] == []


@pytest.mark.usefixtures("stand_in_networks")
def test_run_fails_below_the_least_confidence(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    assert run(good, output, models, "--takes", 2, "--min-sync-confidence", 1000) == 1
    line = refused(capsys)
    assert "The sync confidence is below --min-sync-confidence 1000.0: " in line
    assert "(seed 1247), " in line
    assert not output.exists()
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record["outcome"] == "failed"
    assert len(record["takes"]) == 2
    assert run(good, output, models, "--min-sync-confidence", -1000) == 0


def count_samplings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that are sampled from now on."""
    seeds: list[int] = []
    sample = pipeline.sample_windows

    def counted(*given: Any, **more: Any) -> Any:
        seeds.append(next(value for value in given if isinstance(value, SamplerSettings)).seed)
        return sample(*given, **more)

    monkeypatch.setattr(pipeline, "sample_windows", counted)
    return seeds


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no Ctrl-C to one process")
def test_cancelled_takes_are_not_made_again(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, more = tmp_path / "results", ("--takes", 2, "--seed", 5, "--crf", 0, "--steps", 4)
    folder.mkdir()
    output, kept = folder / "out.mp4", folder / "out.takes"
    command = [sys.executable, "-m", "latentsync", *arguments(good, output, models, *more)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"seed 5: sync confidence ")
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].decode()
    assert process.returncode == 1, said
    assert f"note: The finished takes (1) are kept in {kept}. The same command continues with them." in said
    assert sorted(path.name for path in folder.iterdir()) == ["out.json", "out.takes"]
    record = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert record["outcome"] == "cancelled"
    assert [take["seed"] for take in record["takes"]] == [5]

    seeds = count_samplings(monkeypatch)
    assert run(good, output, models, *more) == 0
    assert seeds == [6]
    assert sorted(path.name for path in folder.iterdir()) == ["out.json", "out.mp4"]
    whole = tmp_path / "whole.mp4"
    assert run(good, whole, models, *more) == 0
    assert seeds == [6, 5, 6]
    np.testing.assert_array_equal(*[decoded(path, FRAMES) for path in (output, whole)])
    first, second = (json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in (output, whole))
    assert first["takes"] == second["takes"]
    assert len(first["takes"]) == 2
    assert first["seed"] == second["seed"]


@pytest.mark.usefixtures("stand_in_networks")
def test_failed_takes_are_kept_for_a_lower_limit(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More takes add to them. Other settings make them anew."""
    output, seeds = tmp_path / "out.mp4", count_samplings(monkeypatch)
    assert run(good, output, models, "--takes", 2, "--seed", 5, "--min-sync-confidence", 1000) == 1
    assert run(good, output, models, "--takes", 3, "--seed", 5, "--min-sync-confidence", 1000) == 1
    assert seeds == [5, 6, 7]
    assert run(good, output, models, "--takes", 3, "--seed", 5, "--min-sync-confidence", -1000) == 0
    assert seeds == [5, 6, 7]
    assert not output.with_suffix(".takes").exists()
    assert run(good, output, models, "--takes", 1, "--seed", 5, "--min-sync-confidence", 1000) == 1
    assert run(good, output, models, "--takes", 1, "--seed", 5, "--min-sync-confidence", 0, "--steps", 2) == 0
    assert seeds == [5, 6, 7, 5, 5]


def test_run_replaces_no_other_file_named_takes(
    good: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "out.takes"
    notes.write_text("mine", encoding="utf-8")
    assert run(good, tmp_path / "out.mp4", models, "--takes", 2) == 2
    assert "out.takes does not contain takes of LatentSync" in refused(capsys)
    assert notes.read_text(encoding="utf-8") == "mine"


def test_run_checks_takes_before_the_long_work(
    good: Sample,
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faces, "search", lambda *_: pytest.fail("the search for faces has begun"))
    output = tmp_path / "out.mp4"
    assert run(good, output, models, "--takes", 0) == 2
    assert '"takes" cannot be 0' in refused(capsys)
    assert run(good, output, models, "--takes", 2, "--seed", 2**64 - 1) == 2
    assert '"seed" cannot be' in refused(capsys)
    assert run(good, output, tmp_path, "--takes", 2) == 1
    assert "latentsync download syncnet" in capsys.readouterr().err


def test_load_syncnet_needs_a_models_folder() -> None:
    from latentsync import UsageError

    with pytest.raises(UsageError, match="no models folder"):
        LipSyncPipeline.untrained().load_syncnet()
