"""`run` as a user runs it: files in, a file out, or one line on stderr. `--miniature` uses stand-in networks."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest

from latentsync.audio.reader import read_audio
from latentsync.cli import faces
from latentsync.cli.main import main
from latentsync.output.video_writer import VideoWriter
from latentsync.video.timeline import ping_pong
from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import SELFIE_SEGMENTER
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.cli_process import read_until, record_of
from tests.support.green_bar import FIRST_FRAME, write_green_bar
from tests.support.paths import REPOSITORY
from tests.support.toy_segmenter import write_toy_segmenter
from tests.support.two_people import write_two_people
from tests.support.wav import make_wav

pytestmark = pytest.mark.usefixtures("stand_in_networks")

CLIP_SECONDS, SOURCE_FRAMES, FRAMES = 0.6, 10, 15  # of the clip `good`


def run(*arguments: object) -> int:
    return main(["run", *map(str, arguments)])


def synthetic(good: Sample, output: Path, *more: object) -> int:
    landmarks = ("--face-landmarks", good.landmarks)
    return run(good.video, good.audio, "-o", output, "--miniature", "--steps", 2, *landmarks, *more)


def test_run_makes_video_with_new_speech(good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "\u6d4b\u8bd5 ü x.mp4"
    assert synthetic(good, output) == 0
    made, source = VideoFile(output), VideoFile(good.video)
    assert (made.width, made.height, made.rate, made.frame_count) == (source.width, source.height, 25, FRAMES)
    assert read_audio(output).duration_seconds == pytest.approx(CLIP_SECONDS, abs=0.03)
    assert "trained on one face" in capsys.readouterr().err


def test_run_same_seed_gives_same_file(good: Sample, whole_models: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{name}.mp4" for name in ("one", "same", "other")]
    flags = ("--face-landmarks", good.landmarks, "--models", whole_models, "--steps", 2, "--crf", 0)
    for path, seed in zip(outputs, (1, 1, 2), strict=True):
        assert run(good.video, good.audio, "-o", path, *flags, "--seed", seed) == 0
    one, same, other = (path.read_bytes() for path in outputs)
    assert one == same != other


def test_run_loads_weights_from_disk(good: Sample, whole_models: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    status = run(
        good.video, good.audio, "-o", output, "--models", whole_models, "--steps", 1, "--face-landmarks", good.landmarks
    )
    assert status == 0
    assert VideoFile(output).frame_count == FRAMES


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "vp9"), (".mkv", "ffv1")])
def test_run_output_suffix_chooses_format(good: Sample, tmp_path: Path, suffix: str, codec: str) -> None:
    output = tmp_path / f"out{suffix}"
    assert synthetic(good, output, "--steps", 1) == 0
    assert VideoFile(output).frame_count == FRAMES
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec_context.name.endswith(codec)


def test_run_writes_record_beside_output(good: Sample, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    fast = (
        "--steps",
        2,
        "--sampler-name",
        "uni_pc",
        "--overlap",
        4,
        "--cfg-start-percent",
        0.5,
        "--cfg-end-percent",
        1,
    )
    assert synthetic(good, output, *fast, "--save-record", "--consent", "my own face", "--seed", 9) == 0
    record: Any = record_of(tmp_path / "out.json")
    assert (record["outcome"], record["seed"], record["consent"]) == ("done", 9, "my own face")
    assert record["output"]["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    given = {"video": good.video, "audio": good.audio, "face_landmarks": good.landmarks}
    assert {item["role"]: (item["name"], item["sha256"]) for item in record["inputs"]} == {
        role: (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for role, path in given.items()
    }
    lips = record["settings"]["lips"]
    assert (lips["faces"]["face"], lips["audio"]["silence"], lips["sampler"]["steps"]) == (
        "largest",
        "model",
        2,
    )
    assert (lips["sampler"]["sampler_name"], lips["sampler"]["overlap"]) == ("uni_pc", 4)
    assert (lips["sampler"]["cfg_start_percent"], lips["sampler"]["cfg_end_percent"]) == (0.5, 1.0)
    assert lips["timeline"] == {"output_fps": "auto", "length_mode": "audio (ping-pong)"}
    assert record["frames"] == {"total": FRAMES, "lips": FRAMES, "untouched": 0}
    with av.open(str(output)) as container:
        assert container.metadata["AI-modified"] == "yes"


def test_run_two_people_speak_in_turn(good: Sample, tmp_path: Path) -> None:
    """The mouth on the left changes up to frame 6, that on the right from frame 7 on, and the sound plays once."""
    video, landmarks = write_two_people(good, tmp_path)
    output = tmp_path / "out.mkv"
    turns = ("--face", "leftmost", "--turns", "1: 0-0.28 / 2: 0.28-0.6")
    assert run(video, good.audio, "-o", output, "--miniature", "--steps", 1, "--face-landmarks", landmarks, *turns) == 0
    made, source = VideoFile(output), VideoFile(video)
    shown = source.read([ping_pong(i, source.frame_count) for i in range(FRAMES)])
    for i, (frame, original) in enumerate(zip(made.read(range(FRAMES)), shown, strict=True)):
        left, right = np.split((frame != original).any(axis=-1), 2, axis=1)
        assert (left.any(), right.any()) == (i < 7, i >= 7), i
    sound = read_audio(good.audio).samples
    np.testing.assert_allclose(read_audio(output).samples[:, : sound.shape[1]], sound, atol=1e-4)
    lips = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))["settings"]
    assert [lips[name]["audio"]["turns"] for name in ("lips 1", "lips 2")] == ["0-0.28", "0.28-0.6"]
    assert [lips[name]["faces"]["face_index"] for name in ("lips 1", "lips 2")] == [1, 2]


@pytest.mark.parametrize(
    ("turns", "sentence"),
    [
        ("1: 0-0.2 / 3: 0.2-0.4", "Choose a number from 1 to 2."),
        ("1: 0-0.2 / 2: 9-10", '"turns" contains 9-10, but the recording is only 0.60 s long.'),
        ("0.2", '"turns" cannot be 0.2. Enter times in seconds, such as 0-4.5, 9-12.'),
    ],
)
def test_run_wrong_turns_give_one_sentence(
    good: Sample, tmp_path: Path, turns: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    video, landmarks = write_two_people(good, tmp_path)
    output = tmp_path / "out.mkv"
    assert run(video, good.audio, "-o", output, "--miniature", "--face-landmarks", landmarks, "--turns", turns) in (
        1,
        2,
    )
    assert sentence in capsys.readouterr().err
    assert not output.exists()


def test_run_mixes_background_under_speech(good: Sample, tmp_path: Path) -> None:
    """A tone that is longer than the speech: the result has it, ends with the video, and is not clipped."""
    output = tmp_path / "out.mkv"
    tone = make_wav(tmp_path / "tone.wav", 32767 * np.sin(np.arange(96000) * 0.3)[None], 48000)
    loud = ("--background", tone, "--background-gain-db", 6, "--ducking-db", 3, "--steps", 1)
    assert synthetic(good, output, *loud, "--save-record") == 0
    made = read_audio(output)
    assert abs(made.duration_seconds - Fraction(FRAMES, 25)) <= Fraction(1, made.rate)
    assert 0.5 < float(made.samples.abs().max()) < 0.9, "-1 dB"
    record: Any = record_of(tmp_path / "out.json")
    assert (record["settings"]["background_gain_db"], record["settings"]["ducking_db"]) == (6.0, 3.0)
    assert tone.name in [item["name"] for item in record["inputs"] if item["role"] == "background"]


def test_run_failure_leaves_record_and_no_video(good: Sample, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert run(words(tmp_path / "words.mp4"), good.audio, "-o", output, "--miniature", "--save-record") == 1
    record: Any = record_of(tmp_path / "out.json")
    assert record["outcome"] == "failed"
    assert "words.mp4" in record["reason"]
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "rate", "frames"),
    [
        pytest.param(["--length-mode", "video"], 25, SOURCE_FRAMES, id="as the video"),
        pytest.param(["--length-mode", "audio (hold last frame)"], 25, FRAMES, id="rest on the last frame"),
        pytest.param(["--length-mode", "audio (loop)", "--output-fps", "source"], 25, FRAMES, id="over again"),
        pytest.param(["--length-mode", "shortest", "--output-fps", "25"], 25, SOURCE_FRAMES, id="the shorter"),
    ],
)
def test_run_length_and_fps_options(good: Sample, tmp_path: Path, arguments: list[str], rate: int, frames: int) -> None:
    output = tmp_path / "out.mp4"
    assert synthetic(good, output, "--steps", 1, *arguments) == 0
    made = VideoFile(output)
    assert (made.rate, made.frame_count) == (rate, frames)
    assert read_audio(output).duration_seconds == pytest.approx(frames / rate, abs=0.03)


def test_run_refuses_to_stretch_too_far(good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any other work: the models folder is empty, and is not looked at."""
    output = tmp_path / "out.mp4"
    stretched = ("--length-mode", "audio (stretch video)", "--models", tmp_path)
    assert run(long_gray(tmp_path / "gray.mp4"), good.audio, "-o", output, "--no-save-record", *stretched) == 2
    assert 'times as long as gray.mp4. "length_mode" audio (stretch video) allows 0.8 to 1.25' in refusal(capsys)
    assert not output.exists()


def long_gray(path: Path) -> Path:
    with VideoWriter(path, rate=Fraction(25), height=64, width=64) as writer:
        for _ in range(10 * FRAMES):
            writer.write(np.full((64, 64, 3), 127, np.uint8))
    return path


def gray(path: Path) -> Path:
    with VideoWriter(path, rate=Fraction(25), height=64, width=64) as writer:
        for _ in range(5):
            writer.write(np.full((64, 64, 3), 127, np.uint8))
    return path


def words(path: Path) -> Path:
    path.write_text("this is no video", encoding="utf-8")
    return path


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the error."""
    last = capsys.readouterr().err.strip().splitlines()
    (line,) = [line for line in last if line.startswith("latentsync: ")]
    assert "Traceback" not in line
    return line


def test_run_refuses_video_without_face(
    shared: Path, good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "latentsync"
    models.mkdir()
    (models / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    output = tmp_path / "out.mp4"
    video = gray(tmp_path / "gray.mp4")
    assert run(video, good.audio, "-o", output, "--miniature", "--models", tmp_path) == 1
    assert "gray.mp4 has 5 frames, but LatentSync found no face in any of them" in refusal(capsys)
    assert not output.exists()


def test_run_lists_missing_weights(good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(good.video, good.audio, "-o", tmp_path / "out.mp4", "--models", tmp_path / "none") == 1
    said = capsys.readouterr().err
    for name in ("latentsync_unet.pt", "tiny.pt", "sd-vae-ft-mse.safetensors"):
        assert name in said
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--steps", "0"], id="no steps"),
        pytest.param(["--cfg", "0.5"], id="cfg below one"),
        pytest.param(["--version", "2.0"], id="unknown version"),
        pytest.param(["--crf", "99"], id="crf off the scale"),
        pytest.param(["-o", "out.avi"], id="no kind of video"),
        pytest.param(["-o", "no/such/folder/out.mp4"], id="no such folder"),
    ],
)
def test_run_bad_usage_exits_with_status_2(good: Sample, tmp_path: Path, arguments: list[str]) -> None:
    try:
        status = synthetic(good, tmp_path / "out.mp4", *arguments)
    except SystemExit as leaving:
        status = leaving.code
    assert status == 2
    assert not (tmp_path / "out.mp4").exists()


def test_run_never_overwrites_source(good: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    before = good.video.read_bytes()
    assert synthetic(good, good.video) == 2
    assert "one of the inputs" in refusal(capsys)
    assert good.video.read_bytes() == before


@pytest.mark.parametrize("flag", ["--vocals", "--reference-face"])
def test_run_never_overwrites_other_inputs(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    (tmp_path / "take.mp4").write_bytes(good.video.read_bytes())
    assert synthetic(good, tmp_path / "take.mp4", flag, tmp_path / "take.mp4") == 2
    assert "one of the inputs" in refusal(capsys)
    assert (tmp_path / "take.mp4").read_bytes() == good.video.read_bytes()


@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        (["--threshold-db", "50"], 2, '"threshold_db" cannot be 50'),
        (["--hold-ms", "-1"], 2, '"hold_ms" cannot be -1'),
        (["--offset-ms", "-900000"], 1, 'Set "offset_ms" closer to 0'),
        (["--vocals", "nowhere.wav"], 1, "nowhere.wav does not exist"),
        (["--max-yaw", "100"], 2, '"max_yaw" cannot be 100'),
        (["--face-index", "0"], 2, '"--face-index" cannot be 0'),
        (["--reference-face", "nobody.png"], 1, "nobody.png does not exist"),
        (["--seed", str(2**64)], 2, '"seed" cannot be'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_run_refuses_bad_settings_before_long_work(
    good: Sample,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wrong: list[str],
    status: int,
    said: str,
) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("the search for faces has begun")

    monkeypatch.setattr(faces, "search", too_late)
    assert synthetic(good, tmp_path / "out.mp4", *wrong) == status
    assert said in capsys.readouterr().err


def test_run_refuses_audio_format_cannot_hold(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces, "search", lambda *_: pytest.fail("the search for faces has begun"))
    audio = make_wav(tmp_path / "seven.wav", np.zeros((7, 16000)), 16000)
    assert synthetic(replace(good, audio=audio), tmp_path / "out.mp4") == 1
    assert "aac supports 1, 2, 3, 4, 5, 6, 8 audio channels, not 7" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process without telling it")
def test_run_ended_by_signal_leaves_only_the_record(
    good: Sample, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SIGTERM, as from the command kill. `cli.main.run_process` handles SIGTERM like Ctrl-C."""
    speech = graphs.write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", (6.0, True))  # 150 frames
    quick = ["--miniature", "--steps", "1", "--cfg", "1", "--face-landmarks", str(good.landmarks)]
    command = [sys.executable, "-m", "latentsync", "run", str(good.video), str(speech)]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "out.mp4"), *quick],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = read_until(process.stderr, rb"video:.* 1/150")
    process.send_signal(signal.SIGTERM)
    said += process.stderr.read()
    assert process.wait() == 1, said
    assert b"latentsync: Cancelled." in said
    assert b"Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["outcome"] == "cancelled"


def test_faces_shows_no_logs_of_mediapipe(good: Sample, shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "latentsync"
    folder.mkdir()
    (folder / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    command = [sys.executable, "-m", "latentsync", "faces", str(good.video), "--models", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    lines = [line for line in done.stderr.decode().replace("\r", "\n").splitlines() if line]
    assert lines
    assert [line for line in lines if not line.startswith("faces:")] == []


def test_run_occlusion_keeps_an_object_in_front_of_the_mouth(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With MediaPipe's real segmenter and a file of known output: green is an object."""
    covered, models = tmp_path / "covered.mkv", tmp_path / "models"
    rows, columns = write_green_bar(good, covered)
    write_toy_segmenter(models / SELFIE_SEGMENTER.path)
    video = replace(good, video=covered)
    original = list(VideoFile(covered).read(range(SOURCE_FRAMES)))
    for name, kept in (("off", False), ("auto", True)):
        output = tmp_path / f"{name}.mkv"
        assert synthetic(video, output, "--models", models, "--occlusion", name) == 0
        made = list(VideoFile(output).read(range(SOURCE_FRAMES)))
        behind = [
            int(np.abs(made[i][rows, columns].astype(int) - original[i][rows, columns]).max())
            for i in range(FIRST_FRAME, SOURCE_FRAMES)
        ]
        assert (max(behind) <= 1) == kept, behind
        assert np.abs(made[0].astype(int) - original[0]).max() > 30, "the mouth before the object comes is new"
        assert json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))["flags"]["occlusion"] == name
    capsys.readouterr()
    picture = tmp_path / "faces.png"
    flags = ["--face-landmarks", str(good.landmarks), "--models", str(models), "--occlusion", "auto"]
    assert main(["faces", str(covered), "-o", str(picture), *flags]) == 0
    assert f"object in front of the mouth: {FIRST_FRAME}-{SOURCE_FRAMES - 1}" in capsys.readouterr().out
    assert PIL.Image.open(picture).size == (2 * faces.PREVIEW_PX, faces.PREVIEW_PX)


def test_run_occlusion_without_its_model_says_how_to_get_it(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthetic(good, tmp_path / "out.mp4", "--models", tmp_path, "--occlusion", "auto") == 1
    error = capsys.readouterr().err
    assert f'latentsync download occlusion --models "{tmp_path}"' in error
    assert 'You can also set "occlusion" to off' in error
    assert not (tmp_path / "out.mp4").exists()
