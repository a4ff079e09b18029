"""The command line as a process that can be killed, and what it may leave behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from io import BufferedReader
from pathlib import Path
from typing import IO

import jsonschema

from latentsync.cli.main import main
from latentsync.video.video_file import VideoFile
from tests.support.paths import REPOSITORY
from tests.support.scene import Scene

SCHEMA = json.loads((REPOSITORY / "docs" / "record.schema.json").read_text(encoding="utf-8"))
STAGES = ("faces", "audio", "lips", "video")
BEFORE, AFTER = "before its stages", "after its end"


def begun(scene: Scene, *more: object) -> subprocess.Popen[bytes]:
    """Start the command line as a process."""
    command = [sys.executable, "-m", "latentsync", *scene.run("--save-record", *more)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def await_stage(process: subprocess.Popen[bytes], stage: str) -> None:
    """Read stderr until it shows the progress bar of a stage."""
    read_until(process.stderr, f"{stage}:".encode())


def read_until(stream: IO[bytes] | None, pattern: bytes) -> bytes:
    """Read a pipe until a regular expression matches what was read, and return all of that.

    The pipe must be unbuffered, or have `read1`.
    """
    assert stream is not None
    read = stream.read1 if isinstance(stream, BufferedReader) else stream.read
    said = b""
    while not re.search(pattern, said):
        piece = read(4096)
        assert piece, said.decode(errors="replace")
        said += piece
    return said


def record_of(path: Path) -> dict[str, object]:
    record = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    return record


def check_after_a_kill(scene: Scene, stage: str) -> str:
    """Check the files of a killed run, and that the next run works; returns the outcome in the killed run's record."""
    if scene.output.exists() and scene.output.stat().st_size:  # an empty file is a reserved name
        assert VideoFile(scene.output).frame_count == 15, "under its name only when whole"
    record = scene.output.with_suffix(".json")
    outcome = str(record_of(record)["outcome"]) if record.exists() else "none"
    assert outcome in {BEFORE: ("none", "unfinished"), AFTER: ("done",)}.get(stage, ("unfinished", "done"))
    shown = [path.name for path in scene.folder.iterdir() if not path.name.startswith(".")]
    assert set(shown) <= {"out.mp4", "out.json"}
    assert main(scene.run("--save-record")) == 0
    assert VideoFile(scene.output).frame_count == 15
    assert sorted(path.name for path in scene.folder.iterdir()) == ["out.json", "out.mp4"], "no stray file"
    assert record_of(record)["outcome"] == "done"
    return outcome


def limit_files(to_bytes: int) -> None:
    """Make every write beyond this size of a file fail, as on a full disk. Runs in the child process."""
    import resource  # Windows has none

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (to_bytes, to_bytes))


def check_no_room(scene: Scene, room_bytes: int) -> None:
    """A run that may write no file beyond this size fails with one sentence, and the next run works."""
    command = [sys.executable, "-m", "latentsync", *scene.run("--save-record")]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, check=False, preexec_fn=lambda: limit_files(room_bytes)
    )
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    (line,) = re.findall(r"latentsync: (.*)", said)
    assert "cannot be written" in line
    assert not scene.output.exists()
    left = sorted(path.name for path in scene.folder.iterdir())
    assert left in ([], ["out.json"])
    if left:
        assert record_of(scene.folder / "out.json")["outcome"] in ("failed", "unfinished")
    assert main(scene.run("--save-record")) == 0
