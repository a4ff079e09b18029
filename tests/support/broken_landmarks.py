"""Attacks with broken face landmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.scene import Attack, Scene

Stored = dict[str, Any]


def changed(change: Callable[[Stored], object]) -> Callable[[Scene], list[str]]:
    """`faces` with valid landmarks and one change."""

    def arguments(scene: Scene) -> list[str]:
        stored = json.loads(scene.good.landmarks.read_text(encoding="utf-8"))
        change(stored)
        return scene.search(scene.written("face.json", json.dumps(stored)))

    return arguments


def of(content: bytes | str) -> Callable[[Scene], list[str]]:
    return lambda scene: scene.search(scene.written("face.json", content))


def moved(value: object) -> Callable[[Stored], object]:
    """Replace the first number of the first face."""

    def change(stored: Stored) -> None:
        stored["frames"][0][0]["landmarks_xy"][0][0] = value

    return change


def spread(stored: Stored) -> None:
    """Move finite points so far apart that the squared distance overflows."""
    for face in stored["frames"][0]:
        face["landmarks_xy"] = (np.array(face["landmarks_xy"]) * 1e200).tolist()


def beyond(stored: Stored) -> None:
    for frame in stored["frames"]:
        for face in frame:
            face["landmarks_xy"] = (np.array(face["landmarks_xy"]) + 1e9).tolist()


def sparse(scene: Scene) -> Path:
    """A sparse file of 8 GB."""
    path = scene.folder / "face.json"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    return path


NO_JSON = r"face.json cannot be read as face landmarks"
NOT_SHAPED = '"face_landmarks" needs the lists'

LANDMARKS = [
    Attack("landmarks of no bytes", of(b""), NO_JSON),
    Attack("words as landmarks", of("words"), NO_JSON),
    Attack("landmarks cut in half", lambda s: of(s.good.landmarks.read_bytes()[:5000])(s), NO_JSON),
    Attack("landmarks that are no UTF-8", of(b"\xff\xfe{}"), NO_JSON),
    Attack("JSON a hundred thousand lists deep", of("[" * 100_000), NO_JSON),
    Attack("landmarks of 8 GB", lambda s: s.search(sparse(s)), "face.json .*8,590 MB"),
    Attack("a video as landmarks", lambda s: s.search(s.good.video), "cannot be read as face landmarks"),
    Attack("a list as landmarks", of("[]"), "is not a JSON object"),
    Attack("landmarks without frames", of("{}"), NOT_SHAPED),
    Attack("landmarks whose frames are a number", of('{"frames": 5, "image_size": [64, 64]}'), NOT_SHAPED),
    Attack(
        "landmarks whose faces are words", of('{"frames": ["abc"], "image_size": [640, 480]}'), "landmarks of frame 0"
    ),
    Attack("landmarks of no frames", changed(lambda stored: stored["frames"].clear()), '"face_landmarks" has 0 frames'),
    Attack(
        "landmarks of another number of frames",
        changed(lambda stored: stored["frames"].pop()),
        '"face_landmarks" has .* frames, but',
    ),
    Attack("a picture size of 0", changed(lambda stored: stored.update(image_size=[0, 0])), "0 x 0 pixels"),
    Attack(
        "a negative picture size",
        changed(lambda stored: stored.update(image_size=[-640, -480])),
        "is not valid",
    ),
    Attack(
        "a picture size that is no number",
        changed(lambda stored: stored.update(image_size=[float("nan")] * 2)),
        "nan x nan pixels",
    ),
    Attack(
        "an endless picture size",
        changed(lambda stored: stored.update(image_size=[float("inf")] * 2)),
        "inf x inf pixels",
    ),
    Attack(
        "a picture size of 400 digits", changed(lambda stored: stored.update(image_size=[10**400, 10**400])), NOT_SHAPED
    ),
    Attack("a landmark that is no number", changed(moved(float("nan"))), "landmarks of frame 0: .*NaN or infinite"),
    Attack("an endless landmark", changed(moved(float("inf"))), "landmarks of frame 0: .*NaN or infinite"),
    Attack("a landmark of 400 digits", changed(moved(10**400)), "landmarks of frame 0"),
    Attack("a word among landmarks", changed(moved("left")), "landmarks of frame 0"),
    Attack("landmarks 1e200 pixels apart", changed(spread), "landmarks of frame 0: .*pixels"),
    Attack("landmarks a thousand million pixels away", changed(beyond), "landmarks of frame 0: .*pixels"),
    Attack(
        "ten landmarks",
        changed(lambda stored: stored["frames"][0][0].update(landmarks_xy=[[1, 2]] * 10)),
        "10 x 2 values",
    ),
    Attack(
        "all landmarks on one pixel",
        changed(lambda stored: stored["frames"][0][0].update(landmarks_xy=[[9, 9]] * 478)),
        "on one pixel",
    ),
    Attack(
        "a face's score is a word",
        changed(lambda stored: stored["frames"][0][0].update(score="high")),
        "landmarks of frame 0",
    ),
    Attack(
        "a face's score is no number",
        changed(lambda stored: stored["frames"][0][0].update(score=float("nan"))),
        "landmarks of frame 0: .*NaN",
    ),
]
