"""Features for dubs on the command line: a stretched video, texture, and who speaks where and when."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latentsync.cli.main import main
from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import SELFIE_SEGMENTER
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.grain import CHIN, FOREHEAD, detail, write_grainy
from tests.support.toy_segmenter import write_toy_segmenter
from tests.support.two_people import LEFT_NOSE, write_talking_pair, write_two_people


def run(video: Path, audio: Path, landmarks: Path, output: Path, *more: object) -> int:
    files = (video, audio, "-o", output, "--face-landmarks", landmarks)
    return main(["run", *map(str, (*files, "--miniature", "--steps", 1, "--no-save-record", *more))])


def test_run_stretches_the_video_and_matches_its_grain(good: Sample, tmp_path: Path) -> None:
    """10 frames become 12. The mouth of the small model is smooth."""
    grainy, outputs = write_grainy(good, tmp_path / "grainy.mkv"), [tmp_path / "off.mkv", tmp_path / "on.mkv"]
    speech = graphs.write_speech(tmp_path / "speech.wav", (0.48, True))
    stretched = ("--length-mode", "audio (stretch video)")
    assert run(grainy, speech, good.landmarks, outputs[0], *stretched) == 0
    assert run(grainy, speech, good.landmarks, outputs[1], *stretched, "--match-texture") == 0
    source, off, on = (list(VideoFile(path).read(range(VideoFile(path).frame_count))) for path in (grainy, *outputs))
    assert (len(off), len(on)) == (12, 12)
    for i, frame in enumerate(on):
        assert np.array_equal(frame[:120], source[min(int(i * 10 / 12 + 0.5), 9)][:120]), f"frame {i}"
    skin, smooth, matched = detail(on, FOREHEAD), detail(off, CHIN), detail(on, CHIN)
    assert smooth < 0.5 * skin
    assert 0.5 * skin < matched < 1.5 * skin


@pytest.mark.usefixtures("stand_in_networks")
def test_run_selects_who_speaks_or_who_is_there(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sound of the video follows the mouth on the right. A point selects the person on the left."""
    video, landmarks = write_talking_pair(tmp_path)
    output = tmp_path / "out.mkv"
    brief = ("--face", "speaking", "--preview-seconds", 0.2)
    original = next(iter(VideoFile(video).read([0])))
    x, y = LEFT_NOSE
    for at, side in (((), 1), (("--face-at", f"{x}, {y}, 0"), 0)):
        assert run(video, good.audio, landmarks, output, *brief, *at) == 0
        halves = np.split((next(iter(VideoFile(output).read([0]))) != original).any(axis=-1), 2, axis=1)
        assert (halves[side].sum() > 200, halves[1 - side].any()) == (True, False), side
    assert run(video, good.audio, landmarks, tmp_path / "no.mkv", *brief, "--face-at", "5, 5, 0") == 1
    assert "shows no face at that point" in capsys.readouterr().err


@pytest.mark.usefixtures("stand_in_networks")
def test_run_turn_without_the_face_fails_early(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person on the right leaves after 4 frames, and should speak after that."""
    video, landmarks = write_two_people(good, tmp_path)
    stored = json.loads(landmarks.read_text(encoding="utf-8"))
    stored["frames"][4:] = [faces[:1] for faces in stored["frames"][4:]]
    landmarks.write_text(json.dumps(stored), encoding="utf-8")
    write_toy_segmenter(tmp_path / SELFIE_SEGMENTER.path)
    turns = ("--face", "leftmost", "--max-gap", 0, "--turns", "1: 0-0.2 / 2: 0.24-0.4")
    slow = ("--occlusion", "auto", "--models", tmp_path)
    assert run(video, good.audio, landmarks, tmp_path / "out.mkv", *turns, *slow) == 1
    told = capsys.readouterr().err
    assert "does not show the selected face in any of the 15 output frames that have speech" in told
    assert "occlusion:" not in told, "the first person is not segmented"
    assert "lips:" not in told, "the mouth of the first person is not sampled either"
