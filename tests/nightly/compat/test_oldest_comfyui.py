"""The oldest supported ComfyUI, in this environment. `make compat` gives each version its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts import compat
from scripts.download_comfyui import download

OLDEST = compat.VERSIONS[0]


@pytest.mark.slow
def test_oldest_comfyui_runs_basic_workflow(tmp_path: Path) -> None:
    program = download(OLDEST, compat.FOLDER / OLDEST)
    trial = compat.attempt(OLDEST, program, tmp_path, Path(sys.executable))
    print(trial)
    assert (trial.loaded, trial.nodes, trial.ran) == (True, len(compat.NODES), True), trial.failure
