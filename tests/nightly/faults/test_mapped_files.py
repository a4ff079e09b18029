"""Model files that change in place while they are mapped."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.support.broken_weights import UNET
from tests.support.paths import REPOSITORY
from tests.support.scene import Scene

CUT_WHILE_MAPPED = """
import sys
from pathlib import Path
from latentsync.weights import loader
place = Path(sys.argv[1])
unet = loader.load_unet(place)
with place.open("r+b") as file:
    file.truncate(1000)
print(sum(float(weight.sum()) for weight in unet.parameters()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep a mapped file from being cut")
def test_mapped_file_cut_in_place_ends_process(scene: Scene) -> None:
    """A mapped file that is cut in place ends the process on Linux. Nothing can catch that."""
    place = scene.folder / "unet.safetensors"
    shutil.copyfile(scene.models / UNET, place)
    command = [sys.executable, "-c", CUT_WHILE_MAPPED, str(place)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    assert done.returncode in (0, -7)
