"""Downloads from a local server: a wrong file never gets the final name."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from latentsync import fetch, hub, verify
from latentsync.errors import WeightsError
from latentsync.progress import run
from latentsync.weights.catalog import HUB, WeightFile
from tests.support.file_server import Served, serving

CONTENT = random.Random(1).randbytes(1 << 20)
CHUNK_BYTES = 64 << 10


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK_BYTES)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as served:
        served.files["/tiny.pt"] = CONTENT
        yield served


def published(served: Served, name: str = "tiny.pt", content: bytes = CONTENT) -> WeightFile:
    return WeightFile(
        path=f"latentsync/{name}",
        url=f"{served.url}/{name}",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
    )


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download_is_complete_with_progress(served: Served, tmp_path: Path) -> None:
    steps = list(fetch.fetch([published(served)], hub.folders_in(tmp_path)))
    assert (tmp_path / "latentsync" / "tiny.pt").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["tiny.pt"]
    assert (steps[-1].done, steps[-1].total) == (len(CONTENT), len(CONTENT))
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_download_skips_existing_file(served: Served, tmp_path: Path) -> None:
    place = tmp_path / "tiny.pt"
    place.write_bytes(b"anything")
    run(fetch.fetch_one(published(served), place))
    assert (place.read_bytes(), served.requests) == (b"anything", [])


def test_download_resumes_after_interruption(served: Served, tmp_path: Path) -> None:
    served.cuts["/tiny.pt"] = [500_000]
    run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert (tmp_path / "tiny.pt").read_bytes() == CONTENT
    kept = 500_000 // CHUNK_BYTES * CHUNK_BYTES
    assert served.requests == [("/tiny.pt", None), ("/tiny.pt", f"bytes={kept}-")]


def test_download_next_try_resumes(served: Served, tmp_path: Path) -> None:
    served.cuts["/tiny.pt"] = [300_000] + 6 * [0]
    place = tmp_path / "tiny.pt"
    with pytest.raises(WeightsError, match=r"tiny.pt: .*What came is kept. Try again"):
        run(fetch.fetch_one(published(served), place))
    kept = fetch.part_of(place).stat().st_size
    assert not place.exists()
    assert 0 < kept <= 300_000
    run(fetch.fetch_one(published(served), place))
    assert place.read_bytes() == CONTENT
    assert served.requests[-1] == ("/tiny.pt", f"bytes={kept}-")


def test_download_restarts_without_range_support(served: Served, tmp_path: Path) -> None:
    served.resumes = False
    fetch.part_of(tmp_path / "tiny.pt").write_bytes(CONTENT[:1000])
    run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert (tmp_path / "tiny.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes(len(CONTENT)), "what came is not tiny.pt: its sha256"),
        (CONTENT + b"more", "sends more than the 1,048,576 bytes"),
        (CONTENT[:-1], "size"),
    ],
    ids=["other bytes", "too long", "too short"],
)
def test_download_wrong_file_never_gets_the_name(served: Served, tmp_path: Path, content: bytes, said: str) -> None:
    served.files["/tiny.pt"] = content
    with pytest.raises(WeightsError, match=said):
        run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert not (tmp_path / "tiny.pt").exists()


def test_download_too_long_file_is_deleted(served: Served, tmp_path: Path) -> None:
    served.files["/tiny.pt"] = CONTENT + b"more"
    with pytest.raises(WeightsError, match="What came was deleted") as raised:
        run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert "kept" not in str(raised.value)
    assert fetch.part_of(tmp_path / "tiny.pt").stat().st_size == 0


def test_download_wrong_part_is_deleted_then_right(served: Served, tmp_path: Path) -> None:
    fetch.part_of(tmp_path / "tiny.pt").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match="It was deleted"):
        run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert left_in(tmp_path) == []
    run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert left_in(tmp_path) == ["tiny.pt"]


def test_download_names_missing_file(served: Served, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{served.url}/none.pt: the server answered 404"):
        run(fetch.fetch_one(published(served, "none.pt"), tmp_path / "none.pt"))
    assert not (tmp_path / "none.pt").exists()


def test_download_without_server_is_reported(served: Served, tmp_path: Path) -> None:
    file = WeightFile("latentsync/tiny.pt", "http://127.0.0.1:1/tiny.pt", 10, "", "MIT")
    with pytest.raises(WeightsError, match=r"127.0.0.1:1/tiny.pt: .*by hand") as raised:
        run(fetch.fetch_one(file, tmp_path / "tiny.pt"))
    assert "HF_ENDPOINT" not in str(raised.value), "mirrors are the hub's"


def test_download_names_failing_mirror_and_setting(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    file = WeightFile("latentsync/tiny.pt", f"{HUB}/none.pt", 10, "", "MIT")
    with pytest.raises(WeightsError, match=rf"{served.url}/none.pt: .*set HF_ENDPOINT to a mirror"):
        run(fetch.fetch_one(file, tmp_path / "tiny.pt"))


def test_download_respects_offline_mode(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    assert (served.requests, (tmp_path / "tiny.pt").exists()) == ([], False)


def test_download_respects_mirror(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    served.files["/owner/repo/resolve/abc/tiny.pt"] = CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = WeightFile("latentsync/tiny.pt", f"{HUB}/owner/repo/resolve/abc/tiny.pt", len(CONTENT), digest, "MIT")
    run(fetch.fetch_one(file, tmp_path / "tiny.pt"))
    assert (tmp_path / "tiny.pt").read_bytes() == CONTENT


def test_download_cancel_keeps_partial_file(served: Served, tmp_path: Path) -> None:
    served.stalls.add("/tiny.pt")
    place = tmp_path / "tiny.pt"
    work = fetch.fetch_one(published(served), place)
    next(work)
    assert served.stalled.wait(60)
    while next(work).done < CHUNK_BYTES:
        pass
    work.close()
    assert left_in(tmp_path) == ["tiny.pt.part"]
    served.stalls.clear()
    run(fetch.fetch_one(published(served), place))
    assert place.read_bytes() == CONTENT


def test_download_two_of_one_file_do_not_collide(served: Served, tmp_path: Path) -> None:
    served.stalls.add("/tiny.pt")
    first = fetch.fetch_one(published(served), tmp_path / "tiny.pt")
    next(first)
    with pytest.raises(WeightsError, match="another program"):
        run(fetch.fetch_one(published(served), tmp_path / "tiny.pt"))
    first.close()


def test_download_lock_is_released_if_not_deletable(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows cannot delete an open file."""
    unlink = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".lock":
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    place = tmp_path / "tiny.pt"
    for _ in range(2):
        run(fetch.fetch_one(published(served), place))
        assert place.read_bytes() == CONTENT
        place.rename(tmp_path / "moved.pt")


@pytest.mark.parametrize(
    ("blocked", "said"),
    [
        pytest.param("latentsync", "latentsync: cannot be written to .*File exists", id="its folder is a file"),
        pytest.param("latentsync/.tiny.pt.lock/x", "latentsync: cannot be written to .*lock", id="no lock"),
        pytest.param("latentsync/tiny.pt.part/x", "latentsync: cannot be written to .*part", id="no part"),
    ],
)
def test_download_names_read_only_folder(served: Served, tmp_path: Path, blocked: str, said: str) -> None:
    """Root can write anywhere, so a file in place of the folder makes the write fail."""
    path = tmp_path / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(WeightsError, match=said) as raised:
        run(fetch.fetch_one(published(served), tmp_path / "latentsync" / "tiny.pt"))
    assert "--models" in str(raised.value)
    assert served.requests == []


class EndsMeanwhile(Future[None]):
    """A download that ends just when the wait for it has timed out."""

    def result(self, timeout: float | None = None) -> None:
        if timeout is not None:
            self.set_result(None)
            raise NotYet
        return super().result()


def test_download_killed_at_any_moment_can_resume() -> None:
    assert fetch._over(EndsMeanwhile()) is False


KILLED = """
import sys
from pathlib import Path
from huggingface_hub import constants
from latentsync.fetch import fetch_one
from latentsync.weights.catalog import WeightFile
constants.DOWNLOAD_CHUNK_SIZE = 65536
url, place, size, digest = sys.argv[1:]
for step in fetch_one(WeightFile("latentsync/tiny.pt", url, int(size), digest, "MIT"), Path(place)):
    if step.done:
        print("growing", flush=True)
"""


def test_download_killed_process_leaves_partial_file(served: Served, tmp_path: Path) -> None:
    served.stalls.add("/tiny.pt")
    file, place = published(served), tmp_path / "tiny.pt"
    command = [sys.executable, "-c", KILLED, file.url, str(place), str(file.size_bytes), file.sha256]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"growing\n"
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    assert not place.exists()
    kept = fetch.part_of(place).stat().st_size
    assert kept > 0
    served.stalls.clear()
    run(fetch.fetch_one(file, place))
    assert place.read_bytes() == CONTENT
    assert served.requests[-1] == ("/tiny.pt", f"bytes={kept}-")
    assert left_in(tmp_path) == ["tiny.pt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs to mount a small tmpfs, which takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_download_checks_disk_space_first(served: Served, small_disk: Path) -> None:
    with pytest.raises(WeightsError, match=r"68 MB are needed there for tiny.pt, and 1 MB are free"):
        run(fetch.fetch([published(served)], hub.folders_in(small_disk)))
    assert (served.requests, left_in(small_disk)) == ([], [])


def test_download_names_full_disk(served: Served, small_disk: Path) -> None:
    place = small_disk / "tiny.pt"
    with pytest.raises(WeightsError, match="the disk is full"):
        run(fetch.fetch_one(published(served), place))
    assert not place.exists()


def test_download_counts_partial_file_as_space(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = published(served)
    place = hub.destination(file, hub.folders_in(tmp_path))
    room = shutil.disk_usage(tmp_path)._replace(free=fetch.SPARE_BYTES + 1000)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: room)
    with pytest.raises(WeightsError, match="are free"):
        fetch.check_room({file: place})
    place.parent.mkdir(parents=True)
    fetch.part_of(place).write_bytes(CONTENT[:-1000])
    fetch.check_room({file: place})


def test_download_remembers_checksum_of_large_file(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "REMEMBERED_BYTES", 1000)
    place = tmp_path / "tiny.pt"
    run(fetch.fetch_one(published(served), place))
    assert verify.remembered(place) == published(served).sha256
