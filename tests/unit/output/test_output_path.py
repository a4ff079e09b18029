"""A reserved output path belongs to one run, and a killed run does not keep it."""

from __future__ import annotations

import errno
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from latentsync import fileio
from latentsync.errors import MediaError
from latentsync.fileio import temp_path
from latentsync.output import output_path
from latentsync.output.output_path import reserve_path
from tests.support.interrupts import interrupt_everywhere
from tests.support.paths import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from latentsync.fileio import temp_path
from latentsync.output.output_path import reserve_path
with reserve_path([Path(sys.argv[1])]) as path:
    temp_path(path).touch()
    print("reserved", flush=True)
    sys.stdin.read()
"""

RESERVE_OFTEN = """
import sys
import time
from pathlib import Path
from latentsync.output.output_path import reserve_path
end = time.monotonic() + 4
while time.monotonic() < end:
    with reserve_path((Path(sys.argv[1]) / f"clip_{number}.mp4" for number in range(9)), fresh=True) as path:
        path.with_suffix(".txt").touch(exist_ok=False)  # fails if another process has reserved the same path
        path.with_suffix(".txt").unlink()
"""


def holder(path: Path) -> subprocess.Popen[bytes]:
    """Another process that has reserved a path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"reserved"
    return process


def numbered(folder: Path) -> list[Path]:
    return [folder / f"clip_{number}.mp4" for number in range(1, 4)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fresh", [False, True])
def test_reserve_path_skips_the_path_of_another_process(tmp_path: Path, fresh: bool) -> None:
    first, second, _ = numbered(tmp_path)
    with holder(first) as other, reserve_path(numbered(tmp_path), fresh=fresh) as path:
        assert path == second
        assert [name for name in names(tmp_path) if ".part" in name], "the temporary file of the other stays"
        other.communicate()
    assert [name for name in names(tmp_path) if ".part" not in name] == []


@pytest.mark.slow
def test_reserve_path_gives_every_process_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RESERVE_OFTEN, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert names(tmp_path) == []


def test_reserve_path_cleans_up_after_a_killed_process(tmp_path: Path) -> None:
    first, second, _ = numbered(tmp_path)
    with holder(first) as other:
        other.kill()
    assert len(names(tmp_path)) == 3, "the empty file, the claim and the temporary file"
    with reserve_path([second]):
        assert not first.exists()
    assert names(tmp_path) == []


def test_killed_run_does_not_block_its_own_path(tmp_path: Path) -> None:
    first = numbered(tmp_path)[0]
    with holder(first) as other:
        other.kill()
    with reserve_path([first]) as path:
        assert path == first
    assert names(tmp_path) == []


def test_reserve_path_keeps_a_video_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), reserve_path([path]):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    with holder(path) as other:
        other.kill()
    assert path.read_bytes() == b"old"
    with reserve_path([path]):
        temporary = temp_path(path)
        temporary.write_bytes(b"new")
        temporary.replace(path)
    assert (path.read_bytes(), names(tmp_path)) == (b"new", ["out.mp4"])


def test_reserve_path_fresh_skips_existing_videos(tmp_path: Path) -> None:
    first, second, _ = numbered(tmp_path)
    first.with_suffix(".webm").write_bytes(b"a video of another format")
    with reserve_path((tmp_path / f"clip_{number}.mp4" for number in count(1)), fresh=True) as path:
        assert path == second
        assert path.stat().st_size == 0
    assert names(tmp_path) == ["clip_1.webm"]


def test_reserve_path_does_not_depend_on_the_suffix(tmp_path: Path) -> None:
    """The record beside a video has the same name."""
    video, other = tmp_path / "out.mp4", tmp_path / "out.webm"
    with reserve_path([video]):
        living = temp_path(video)
        living.touch()
        with pytest.raises(MediaError, match="Another run is writing"), reserve_path([other]):
            pass
        with reserve_path([tmp_path / "another.webm"]):
            assert living.exists()
        with reserve_path([other, tmp_path / "next.webm"], fresh=True) as path:
            assert path.name == "next.webm"


def test_reserve_path_names_the_file_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with (
        reserve_path([path]),
        pytest.raises(MediaError, match=r"Another run is writing .*out.mp4"),
        reserve_path([path]),
    ):
        pass
    with reserve_path([path]):
        pass


@pytest.mark.parametrize("name", ["no/out.mp4", "x" * 256, "nul\0.mp4"])
def test_reserve_path_refuses_names_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match="cannot be written"), reserve_path([tmp_path / name]):
        pass
    assert names(tmp_path) == []


def test_reserve_path_reports_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal is simulated."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(MediaError, match=r"out.mp4 cannot be written \(Permission denied\)"):
        reserve_path([tmp_path / "out.mp4"]).__enter__()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("content", [None, b"", b"an older video"])
def test_reserve_path_leaves_nothing_after_ctrl_c_anywhere(tmp_path: Path, content: bytes | None, fresh: bool) -> None:
    """An earlier file stays as it is, also an empty file. A claim can remain if the first path is not free."""
    path = tmp_path / "out.mp4"
    if content is not None:
        path.write_bytes(content)

    def reserve() -> None:
        with reserve_path([path, tmp_path / "next.mp4"], fresh=fresh):
            sys.settrace(None)  # no Ctrl-C during the cleanup

    places = set[str]()
    for place in interrupt_everywhere(reserve, output_path, fileio):
        places.add(place)
        for claim in tmp_path.glob(".*.claim") if content is not None and fresh else []:
            claim.unlink()
        assert names(tmp_path) == ([] if content is None else ["out.mp4"]), place
        assert content is None or path.read_bytes() == content
    assert len(places) > 20


def test_reserve_path_frees_the_path_on_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), reserve_path([tmp_path / "out.mp4"]):
        raise KeyboardInterrupt
    assert names(tmp_path) == []
