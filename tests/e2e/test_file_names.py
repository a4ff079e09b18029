"""File names with spaces, other scripts, quotes and special characters."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentsync.cli.main import main
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import Sample
from tests.support.paths import REPOSITORY
from tests.support.scene import Scene

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows allows few of these names"),
    pytest.mark.usefixtures("stand_in_networks"),
]

NAMES = {
    "spaces, Chinese and umlauts": "\u6d4b\u8bd5 ü x",
    "an emoji": "\U0001f3ac take 1",
    "a colon, as in an address": "http:12:30",
    "a percent sign, as in a numbered series": "%03d %s",
    "quotation marks and an apostrophe": '"it\'s"',
    "brackets and stars": "[1] {2} *?",
    "a hash and a question mark": "a#b?c=d&e",
    "a new line": "two\nlines",
    "a name that begins with a dash": "-o",
    "a hidden name": ".hidden",
    "a name of 150 letters": "x" * 150,
}


def renamed(scene: Scene, name: str) -> list[str]:
    """`run` where the folder, the inputs and the output all have this name."""
    folder = scene.folder / name
    folder.mkdir()
    given = {"mp4": scene.good.video, "wav": scene.good.audio, "json": scene.good.landmarks}
    for suffix, path in given.items():
        shutil.copyfile(path, folder / f"{name}.{suffix}")
    video, audio, landmarks = (folder / f"{name}.{suffix}" for suffix in given)
    return scene.run(video=video, audio=audio, landmarks=landmarks, output=folder / f"{name} out.mp4")


@pytest.mark.parametrize("kind", NAMES)
def test_run_accepts_any_file_name(
    scene: Scene, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scene.folder)
    arguments = renamed(scene, NAMES[kind])
    assert main([*arguments, "--save-record"]) == 0, capsys.readouterr().err
    (video,) = scene.folder.rglob("* out.mp4")
    assert VideoFile(video).frame_count == 15
    record = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
    assert (record["outcome"], record["output"]["name"]) == ("done", video.name)
    assert len(list(video.parent.iterdir())) == 5, "nothing hidden is left"


@pytest.mark.parametrize("name", ["12:30 take.mp4"])
def test_run_file_name_is_not_read_as_address(
    good: Sample, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = Scene(tmp_path, good, tmp_path)
    shutil.copyfile(good.video, name)
    output = Path(name.replace(".mp4", " out.mp4"))
    assert main(scene.run(video=Path(name), output=output)) == 0
    assert VideoFile(output).frame_count == 15


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such name")
def test_run_accepts_name_that_terminal_cannot_show(scene: Scene) -> None:
    """Bytes that are not UTF-8, printed to a terminal that has only ASCII."""
    name = b"take \xff\xfe.mp4"
    shutil.copyfile(scene.good.video, bytes(scene.folder) + b"/" + name)
    arguments = [*scene.run(), "--save-record"]
    arguments[1] = bytes(scene.folder) + b"/" + name
    arguments[arguments.index(str(scene.output))] = bytes(scene.folder) + b"/out " + name
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "latentsync", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert b"15 frames" in done.stdout
    assert sorted(bytes(path.relative_to(scene.folder)) for path in scene.folder.iterdir()) == [
        b"out take \xff\xfe.json",
        b"out take \xff\xfe.mp4",
        name,
    ]
