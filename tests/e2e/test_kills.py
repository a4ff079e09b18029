"""A run that is killed, or that finds a full disk, leaves no half file, and the next run works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from latentsync.cli.main import main
from latentsync.fileio import temp_path
from latentsync.output.output_path import reserve_path
from tests.support.cli_process import await_stage, begun, check_after_a_kill, check_no_room
from tests.support.paths import REPOSITORY
from tests.support.scene import Scene

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process in one way only"),
    pytest.mark.usefixtures("stand_in_networks"),
]


@pytest.mark.parametrize("stage", ["lips", "video"])
def test_killed_run_leaves_no_half_file(scene: Scene, stage: str) -> None:
    with begun(scene, "--steps", 4) as process:
        await_stage(process, stage)
        process.kill()
        process.communicate()
    check_after_a_kill(scene, stage)


def test_stale_temp_files_are_removed_active_ones_kept(scene: Scene) -> None:
    """One folder holds files of a killed run, of a running one, and a user's file with a similar name."""
    with reserve_path([scene.folder / "living.mp4"]):
        living = temp_path(scene.folder / "living.mp4")
        living.touch()
        dead = living.with_name(living.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-1"))  # an earlier process
        dead.touch()
        own = scene.written(".notes.part.txt", "mine")
        with reserve_path([scene.output]):
            assert not dead.exists()
            assert living.exists()
    assert own.exists()
    living.unlink()
    assert [path.name for path in scene.folder.iterdir()] == [own.name]


def test_second_run_of_same_output_is_refused(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    with reserve_path([scene.output]):
        assert main(scene.run()) == 1
    said = capsys.readouterr().err
    assert "Another run is writing" in said
    assert main(scene.run()) == 0


def test_full_disk_is_one_sentence(scene: Scene) -> None:
    check_no_room(scene, 5_000)


def test_closed_stdout_gives_no_traceback(scene: Scene) -> None:
    """`... | head` closes the pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "latentsync", *scene.search(scene.good.landmarks)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
