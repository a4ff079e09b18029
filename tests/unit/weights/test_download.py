"""Downloads from a server on the loopback: a wrong or incomplete file never gets the final name."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from latentsync.errors import WeightsError
from latentsync.fileio import claim
from latentsync.progress import run
from latentsync.weights import download, locate
from latentsync.weights.catalog import HUB, WeightFile
from latentsync.weights.download import download_file, download_files, partial_bytes, partial_folder
from tests.support.file_server import Served, serving

CONTENT = random.Random(1).randbytes(1 << 20)
CHUNK_BYTES = 64 << 10
REVISION = "a" * 40
KEY = f"/owner/repo/resolve/{REVISION}/tiny.pt"
RESUMES = tuple(map(int, version("huggingface_hub").split(".")[:2])) < (1, 18)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A mirror of the hub with one file."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK_BYTES)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # before 1.0, the second has a copy
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        served.files[KEY] = CONTENT
        yield served


def published(key: str = KEY, content: bytes = CONTENT) -> WeightFile:
    """A file of the hub, which the mirror serves."""
    return WeightFile(
        path="latentsync/tiny.pt",
        url=f"{HUB}{key}",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        license="MIT",
    )


def elsewhere(served: Served, name: str = "face.task") -> WeightFile:
    """A file that is not on the hub."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    return WeightFile(f"latentsync/{name}", f"{served.url}/{name}", len(CONTENT), digest, "Apache-2.0")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download_writes_a_verified_file(served: Served, tmp_path: Path) -> None:
    steps = list(download_files([published()], locate.folders_in(tmp_path)))
    assert (tmp_path / "latentsync" / "tiny.pt").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["tiny.pt"]
    assert (steps[-1].what, steps[-1].done, steps[-1].total) == ("verifying tiny.pt", len(CONTENT), len(CONTENT))
    assert {step.what for step in steps} <= {"downloading tiny.pt", "verifying tiny.pt"}


def test_download_renames_files_of_subfolders(served: Served, tmp_path: Path) -> None:
    key = KEY.replace("tiny.pt", "whisper/other.pt")
    served.files[key] = CONTENT
    run(download_file(published(key), tmp_path / "tiny.pt"))
    assert files_in(tmp_path) == ["tiny.pt"]


def test_download_reports_progress(served: Served, tmp_path: Path) -> None:
    served.stalls.add(KEY)
    task = download_file(published(), tmp_path / "tiny.pt")
    while not (step := next(task)).done:
        assert step.total == len(CONTENT)
    assert step.done <= len(CONTENT) // 2
    task.close()


def test_download_keeps_an_existing_file(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    path.write_bytes(b"anything")
    run(download_file(published(), path))
    assert (path.read_bytes(), served.requests) == (b"anything", [])


def test_download_resumes_after_a_broken_connection(served: Served, tmp_path: Path) -> None:
    if huggingface_hub.__version__ < "1":
        pytest.skip("huggingface_hub < 1 does not retry after this error")
    served.cuts[KEY] = [500_000]
    run(download_file(published(), tmp_path / "tiny.pt"))
    assert (tmp_path / "tiny.pt").read_bytes() == CONTENT
    kept = 500_000 // CHUNK_BYTES * CHUNK_BYTES
    assert served.requests == [(KEY, None), (KEY, f"bytes={kept}-")]


def test_failed_download_tells_whether_it_will_resume(served: Served, tmp_path: Path) -> None:
    served.cuts[KEY] = [300_000] + 6 * [0]
    path = tmp_path / "tiny.pt"
    with pytest.raises(WeightsError, match=rf"could not be downloaded from .*{KEY} \(") as raised:
        run(download_file(published(), path))
    assert ("The next attempt continues this download." in str(raised.value)) is RESUMES
    assert "set HF_ENDPOINT to a mirror" in str(raised.value)
    assert not path.exists()
    assert partial_folder(path).exists() is RESUMES
    kept = partial_bytes(path)
    served.cuts.clear()
    run(download_file(published(), path))
    assert path.read_bytes() == CONTENT
    assert served.requests[-1] == (KEY, f"bytes={kept}-" if RESUMES else None)


@pytest.mark.parametrize(
    "content", [bytes(len(CONTENT)), CONTENT + b"more", CONTENT[:-1]], ids=["other", "too long", "too short"]
)
def test_download_refuses_another_file(served: Served, tmp_path: Path, content: bytes) -> None:
    served.files[KEY] = content
    expected, digest = (hashlib.sha256(data).hexdigest() for data in (CONTENT, content))
    with pytest.raises(
        WeightsError,
        match=f"tiny.pt from .* has a wrong checksum. The SHA-256 is {digest}, not {expected}. LatentSync deleted",
    ):
        run(download_file(published(), tmp_path / "tiny.pt"))
    assert files_in(tmp_path) == []


def test_download_reports_the_status_of_the_server(served: Served, tmp_path: Path) -> None:
    del served.files[KEY]
    with pytest.raises(
        WeightsError, match=rf"tiny.pt could not be downloaded from {served.url}{KEY} \(the server answered 404\)"
    ):
        run(download_file(published(), tmp_path / "tiny.pt"))
    with pytest.raises(WeightsError, match=r"none.task \(the server answered 404\)") as raised:
        run(download_file(elsewhere(served, "none.task"), tmp_path / "none.task"))
    assert "HF_ENDPOINT" not in str(raised.value), "mirrors are the hub's"
    assert files_in(tmp_path) == []


def test_download_reports_an_unreachable_server(served: Served, tmp_path: Path) -> None:
    file = WeightFile("latentsync/tiny.pt", "http://127.0.0.1:1/tiny.pt", 10, "", "MIT")
    with pytest.raises(WeightsError, match=r"127.0.0.1:1/tiny.pt \(.*refused.*\).* download the file"):
        run(download_file(file, tmp_path / "tiny.pt"))


def test_download_fetches_files_outside_the_hub(served: Served, tmp_path: Path) -> None:
    served.files["/face.task"] = CONTENT
    run(download_file(elsewhere(served), tmp_path / "face.task"))
    assert (tmp_path / "face.task").read_bytes() == CONTENT
    served.files["/face.task"] = b"another file"
    (tmp_path / "face.task").unlink()
    with pytest.raises(WeightsError, match=r"face.task from .* has a wrong checksum"):
        run(download_file(elsewhere(served), tmp_path / "face.task"))
    assert files_in(tmp_path) == []


def test_download_honors_offline_mode(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for file in (published(), elsewhere(served)):
        with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
            run(download_file(file, tmp_path / file.name))
    assert (served.requests, files_in(tmp_path), [*tmp_path.glob(".*.download")]) == ([], [], [])


def test_download_works_without_a_tqdm_class(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in huggingface_hub < 1.1, which transformers 4 requires."""
    current = huggingface_hub.hf_hub_download

    def older(repo_id: str, filename: str, *, revision: str, local_dir: Path, **names: str) -> str:
        return current(repo_id, filename, revision=revision, local_dir=local_dir, **names)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", older)
    run(download_file(published(), tmp_path / "tiny.pt"))
    assert (tmp_path / "tiny.pt").read_bytes() == CONTENT


def test_cancel_stops_the_download_thread(served: Served, tmp_path: Path) -> None:
    served.stalls.add(KEY)
    path = tmp_path / "tiny.pt"
    task = download_file(published(), path)
    while next(task).done < CHUNK_BYTES:
        pass
    task.close()
    served.stalls.clear()
    served.released.set()
    run(download_file(published(), path))
    assert path.read_bytes() == CONTENT
    assert files_in(tmp_path) == ["tiny.pt"]


def test_two_downloads_of_one_file_do_not_mix(served: Served, tmp_path: Path) -> None:
    served.stalls.add(KEY)
    first = download_file(published(), tmp_path / "tiny.pt")
    next(first)
    with pytest.raises(WeightsError, match="Another program is downloading"):
        run(download_file(published(), tmp_path / "tiny.pt"))
    first.close()


@pytest.mark.parametrize(
    ("blocked", "reason"),
    [
        pytest.param("latentsync", "File exists", id="a file instead of the folder"),
        pytest.param("latentsync/.tiny.pt.download", "File exists", id="a file instead of the partial folder"),
    ],
)
def test_download_reports_a_folder_that_cannot_be_used(
    served: Served, tmp_path: Path, blocked: str, reason: str
) -> None:
    """Root may write anywhere, so something is in the way instead of a missing permission."""
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_bytes(b"")
    with pytest.raises(WeightsError, match=f"latentsync cannot be written to .*{reason}") as raised:
        run(download_file(published(), tmp_path / "latentsync" / "tiny.pt"))
    assert "--models" in str(raised.value)
    assert served.requests == []


KILLED = """
import sys
from pathlib import Path
from huggingface_hub import constants
from latentsync.weights.download import download_file
from latentsync.weights.catalog import WeightFile
constants.DOWNLOAD_CHUNK_SIZE = 65536
url, path, size, digest = sys.argv[1:]
for step in download_file(WeightFile("latentsync/tiny.pt", url, int(size), digest, "MIT"), Path(path)):
    if step.done:
        print("growing", flush=True)
"""


def test_download_recovers_from_a_killed_process(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.stalls.add(KEY)
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    file, path = published(), tmp_path / "tiny.pt"
    command = [sys.executable, "-c", KILLED, file.url, str(path), str(file.size_bytes), file.sha256]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"growing\n"
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    assert not path.exists()
    assert len(list(tmp_path.rglob("*.incomplete"))) == 1
    served.stalls.clear()
    served.released.set()
    run(download_file(file, path))
    assert path.read_bytes() == CONTENT
    assert files_in(tmp_path) == ["tiny.pt"]


def test_download_uses_a_complete_partial_file(served: Served, tmp_path: Path) -> None:
    """Killed between the download and the check."""
    path = tmp_path / "tiny.pt"
    task = download_file(published(), path)
    while next(task).what != "verifying tiny.pt":
        pass
    task.close()
    asked = len(served.requests)
    assert not path.exists()
    run(download_file(published(), path))
    assert (path.read_bytes(), len(served.requests)) == (CONTENT, asked)


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


def test_download_checks_the_disk_space_first(served: Served, small_disk: Path) -> None:
    with pytest.raises(WeightsError, match=r"has 1 MB of free space, but tiny.pt need 68 MB"):
        run(download_files([published()], locate.folders_in(small_disk)))
    assert (served.requests, files_in(small_disk)) == ([], [])


def test_download_reports_a_disk_that_fills_up(served: Served, small_disk: Path) -> None:
    path = small_disk / "tiny.pt"
    with pytest.raises(WeightsError, match=r"could not be downloaded .* \(the disk is full\)"):
        run(download_file(published(), path))
    assert not path.exists()


def test_disk_space_counts_partial_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = published()
    path = locate.destination(file, locate.folders_in(tmp_path))
    usage = shutil.disk_usage(tmp_path)._replace(free=download.SPARE_BYTES + 1000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    partial_folder(path).mkdir(parents=True)
    unusable = partial_folder(path) / "abc.etag.0123abcd.incomplete"
    unusable.write_bytes(CONTENT[:-1000])
    with pytest.raises(WeightsError, match="of free space"):
        download.check_disk_space({file: path})
    unusable.rename(partial_folder(path) / "abc.etag.incomplete")
    download.check_disk_space({file: path})


def test_stale_claims_do_not_block_a_download(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    with claim(path):
        (marker,) = tmp_path.glob("*.claim")
        dead = marker.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-1")  # an earlier process with this id
        (tmp_path / dead).write_text(path.name, encoding="utf-8")
    run(download_file(published(), path))
    assert files_in(tmp_path) == ["tiny.pt"]
