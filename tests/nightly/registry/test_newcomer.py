"""A newcomer's way, as ComfyUI-Manager goes it: unpack the archive, install its requirements, start, run the template.

What was done, what was answered, and how long it took stands in artifacts/newcomer.txt afterwards.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latentsync.weights.catalog import FACE_LANDMARKER
from scripts.comfyui import PACK, REPOSITORY, ComfyUI
from scripts.compat import NODES, SECONDS_OF_SOUND, STEPS
from scripts.demo import DEMO_PACK, PACKS, add_landmarks, fill_in
from scripts.sample_clip import Sample, make_sample
from scripts.workflow import to_api
from tests.support import graphs
from tests.support.paths import SHARED
from tests.support.registry import UserEnvironment
from tests.support.synthetic_models import write_models

TRANSCRIPT = REPOSITORY / "artifacts" / "newcomer.txt"
TEMPLATE = "lipsync_video"
TYPED_IN = {"filename_prefix", "consent", "turns", "face_at"}
"""The text fields of the pack: none is a path, which would read any file of the machine."""


class Transcript:
    """Each step with its time and its result, in a file and on stdout."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        self._path = path

    @contextmanager
    def step(self, words: str) -> Iterator[list[str]]:
        """Time a step; yields a list for the lines of its result."""
        answer: list[str] = []
        started = time.monotonic()
        yield answer
        head = f"{words:90} {time.monotonic() - started:6.1f} s"
        with self._path.open("a", encoding="utf-8") as file:
            for line in (head, *(f"    {line}" for line in answer)):
                print(line)
                file.write(line + "\n")


@pytest.mark.slow
def test_newcomer_gets_a_video(archive: Path, user_environment: UserEnvironment, tmp_path: Path) -> None:
    transcript = Transcript(TRANSCRIPT)
    sample = prepare_user(tmp_path)
    install(archive, user_environment, tmp_path / "custom_nodes", transcript)
    with started(user_environment, tmp_path, transcript) as comfyui:
        object_info = comfyui.object_info()
        check_nodes(object_info)
        check_pages(comfyui, transcript)
        run_template(comfyui, object_info, sample, transcript)


def prepare_user(base: Path) -> Sample:
    """The folders of a user: a video, a recording and untrained weights."""
    write_models(base / "models")
    if SHARED.is_dir():
        shutil.copyfile(SHARED / "models" / "face_landmarker.task", base / "models" / FACE_LANDMARKER.path)
    else:
        shutil.copytree(PACKS[DEMO_PACK], base / "custom_nodes" / DEMO_PACK)
    return make_sample(base / "input", SECONDS_OF_SOUND)


def install(archive: Path, environment: UserEnvironment, custom_nodes: Path, transcript: Transcript) -> None:
    with transcript.step(f"unzip {PACK}.zip -d custom_nodes/{PACK}") as answer, zipfile.ZipFile(archive) as packed:
        packed.extractall(custom_nodes / PACK)
        answer.append(f"{len(packed.namelist())} files, {archive.stat().st_size:,} bytes")
    requirements = custom_nodes / PACK / "requirements.txt"
    before = environment.packages()
    with transcript.step(f"uv pip install -r custom_nodes/{PACK}/requirements.txt") as answer:
        added = environment.install(requirements)
        answer += [f"+ {name} {version}" for name, version in sorted(added.items())]
    assert not added.keys() & before.keys(), "an installed package was changed"


@contextmanager
def started(environment: UserEnvironment, base: Path, transcript: Transcript) -> Iterator[ComfyUI]:
    comfyui = ComfyUI(base, packs={}, python=environment.python)
    try:
        with transcript.step("python main.py") as answer:
            comfyui.start()
            answer += [line.strip() for line in comfyui.log.splitlines() if f"seconds: {base}" in line and PACK in line]
        yield comfyui
    finally:
        comfyui.stop()


def check_nodes(object_info: dict[str, Any]) -> None:
    assert object_info.keys() >= NODES
    inputs = {
        name: spec
        for node in NODES
        for section in object_info[node]["input"].values()
        for name, spec in section.items()
    }
    assert {name for name, spec in inputs.items() if spec[0] == "STRING"} == TYPED_IN


def check_pages(comfyui: ComfyUI, transcript: Transcript) -> None:
    """ComfyUI serves templates, help and translations from the archive."""
    with transcript.step("GET /api/workflow_templates") as answer:
        templates = comfyui.get("/api/workflow_templates").json()[PACK]
        answer.append(f"{PACK}: {', '.join(sorted(templates))}")
    assert TEMPLATE in templates
    for node in NODES:
        for page in (f"{node}.md", f"{node}/zh.md"):
            assert comfyui.get(f"/extensions/{PACK}/docs/{page}").text
    assert comfyui.get("/i18n").json()["zh"]["nodeDefs"].keys() >= NODES


def run_template(comfyui: ComfyUI, object_info: dict[str, Any], sample: Sample, transcript: Transcript) -> None:
    """Run the served template with the user's own files."""
    address = f"/api/workflow_templates/{PACK}/{TEMPLATE}.json"
    with transcript.step(f"GET {address}") as answer:
        workflow = json.loads(comfyui.get(address).text)
        answer.append(", ".join(node["type"] for node in workflow["nodes"]))
    fill_in(workflow, sample, version=None, steps=STEPS)
    if not (comfyui.models / FACE_LANDMARKER.path).is_file():
        add_landmarks(workflow, sample.landmarks.name)
    with transcript.step("POST /prompt") as answer:
        entry = comfyui.run(to_api(workflow, object_info))
        path = graphs.the_video(comfyui.outputs(entry))
        made = graphs.probe(path)
        answer.append(
            f"{path.relative_to(comfyui.base).as_posix()}: {made.width} x {made.height}, {made.frames} frames at "
            f"{made.rate}, {made.audio_seconds:.2f} s of {made.audio_codec}"
        )
    assert made.frames == round(25 * SECONDS_OF_SOUND)
