"""A reserved output name belongs to one process as long as that process lives."""

from __future__ import annotations

import errno
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from latentsync.claim import claimed, part_of
from latentsync.errors import MediaError
from tests.support.paths import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from latentsync.claim import claimed, part_of
with claimed([Path(sys.argv[1])]) as path:
    part_of(path).touch()
    print("claimed", flush=True)
    sys.stdin.read()
"""


CLAIM_OFTEN = """
import sys
import time
from pathlib import Path
from latentsync.claim import claimed
end = time.monotonic() + 2
while time.monotonic() < end:
    with claimed((Path(sys.argv[1]) / f"clip_{number}.mp4" for number in range(9)), fresh=True) as path:
        path.with_suffix(".txt").touch(exist_ok=False)  # nobody else's
        path.with_suffix(".txt").unlink()
"""


def holder(path: Path) -> subprocess.Popen[bytes]:
    """Another process that has reserved a name."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"claimed"
    return process


def numbered(folder: Path) -> list[Path]:
    return [folder / f"clip_{number}.mp4" for number in range(1, 4)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_output_path_skips_name_of_other_process(tmp_path: Path) -> None:
    first, second, _ = numbered(tmp_path)
    with holder(first) as other, claimed(numbered(tmp_path)) as path:
        assert path == second
        assert [name for name in names(tmp_path) if ".part" in name], "the other's half file stays"
        other.communicate()
    assert not list(tmp_path.glob(".*.lock"))


def test_output_path_concurrent_processes_all_get_names(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM_OFTEN, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert not [name for name in names(tmp_path) if not name.endswith(".lock")]


def test_output_path_removes_files_of_killed_process(tmp_path: Path) -> None:
    first, second, _ = numbered(tmp_path)
    with holder(first) as other:
        other.kill()
    assert len(names(tmp_path)) == 2, "its half file and its lock"
    with claimed([second]):
        assert names(tmp_path) == [".clip_2.latentsync.lock"]
    assert names(tmp_path) == []


def test_output_path_existing_name_is_replaced_or_skipped(tmp_path: Path) -> None:
    first, second, _ = numbered(tmp_path)
    first.touch()
    with claimed([first]) as path:
        assert path == first
    with claimed((tmp_path / f"clip_{number}.mp4" for number in count(1)), fresh=True) as path:
        assert path == second
    assert names(tmp_path) == ["clip_1.mp4"]


def test_output_path_reserves_name_of_any_suffix(tmp_path: Path) -> None:
    """The record of a video has the same stem, and the temporary file of a killed run may have another suffix."""
    video, other = tmp_path / "out.mp4", tmp_path / "out.webm"
    with claimed([video]):
        living = part_of(video)
        living.touch()
        with pytest.raises(MediaError, match="another run is writing it"), claimed([other]):
            pass
        with claimed([tmp_path / "another.webm"]):
            assert living.exists()
    with claimed([other]):
        assert not living.exists()
    video.touch()
    with claimed([other, tmp_path / "next.webm"], fresh=True) as path:
        assert path.name == "next.webm"


@pytest.mark.parametrize("missing", [errno.ENOLCK, errno.ENOTSUP])
def test_output_path_works_without_file_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    """As on some network drives."""
    fcntl = pytest.importorskip("fcntl")

    def refused(*_: object) -> None:
        raise OSError(missing, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refused)
    path = tmp_path / "out.mp4"
    with claimed([path]):
        living = part_of(path)
        living.touch()
        with claimed([path]) as same:
            assert same == path
    assert names(tmp_path) == [living.name]


def test_output_path_without_free_name_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with claimed([path]), pytest.raises(MediaError, match=r"out.mp4: another run is writing it"), claimed([path]):
        pass
    with claimed([path]):
        pass


def test_output_path_names_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"no.out.mp4: cannot be written"), claimed([tmp_path / "no" / "out.mp4"]):
        pass


def test_output_path_names_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """filelock behaves like this on Windows and in the system folders of Linux."""
    with claimed([tmp_path / "out.mp4"]):
        monkeypatch.setattr(Path, "touch", refused_by_the_folder)
        with pytest.raises(MediaError, match=r"out.mp4: cannot be written \(Permission denied\)"):
            claimed([tmp_path / "out.mp4"]).__enter__()


def refused_by_the_folder(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_output_path_is_free_again_after_failure(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), claimed([path]):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_output_path_temp_name_is_hidden_and_unique(tmp_path: Path) -> None:
    one, other = part_of(tmp_path / "a [b] (c).webm"), part_of(tmp_path / "a [b] (c).webm")
    assert one != other
    assert (one.parent, one.suffix) == (tmp_path, ".webm")
    assert one.name.startswith(".a [b] (c).")
    one.touch()
    with claimed([tmp_path / "a [b] (c).webm"]):
        assert not one.exists()
