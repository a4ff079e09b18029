"""Errors speak plain sentences, and the troubleshooting page lists them all."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.waveform import Waveform
from latentsync.errors import LatentSyncError, cannot_import
from latentsync.faces.face_track import FaceTrack
from latentsync.oom import out_of_memory_error
from latentsync.pipeline import LipSyncPipeline
from latentsync.video.frame_source import ImageBatch
from latentsync.weights.loader import check_shapes
from scripts.error_table import PAGE, error_classes, messages, page_with, tables

MESSAGES = messages()
ERRORS = [message for message in MESSAGES if message.kind != "warning"]
FORBIDDEN_WORDS = re.compile(
    r"\b(card|fetch|fetched|heard|nobody|slot|somebody|source's|timeline|told|face track|lip track|upstream|whoever"
    r"|wired?)\b|;|.\bNone\b"
)
FORBIDDEN_VALUES = re.compile(r"![ra][:}]|\.shape\}|\btuple\(|\brepr\(|\.tolist\(\)|\.__name__")
BEGINNING = re.compile(r'[A-Z"{-]|torch ')
ENDING = re.compile(r"(\.|:\s*\{\})$")  # a full stop, or a list or another error after a colon


def test_troubleshooting_page_lists_all_errors() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with(tables()), "run: python -m scripts.error_table"
    assert [name for name in error_classes() if f"| `{name}` |" not in page] == []


def test_troubleshooting_hints_quote_real_messages() -> None:
    hints = re.findall(r'^### "(.*)"$', PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(hints) >= 10
    assert [hint for hint in hints if not any(hint in message.text for message in MESSAGES)] == []


def test_every_error_class_is_raised() -> None:
    assert set(error_classes()) == {message.kind for message in ERRORS}


def test_messages_are_plain_sentences() -> None:
    texts = [(message.kind, message.place, re.sub(r"\{.*?\}", "{}", message.text)) for message in MESSAGES]
    assert [text for text in texts if FORBIDDEN_WORDS.search(text[2])] == []
    assert [text for text in texts if not BEGINNING.match(text[2])] == []
    assert [text for text in texts if text[0] != "warning" and not ENDING.search(text[2])] == []


def test_messages_show_no_python_values() -> None:
    shown = {(message.place, value) for message in MESSAGES for value in message.values}
    assert [value for value in shown if FORBIDDEN_VALUES.search(value[1])] == []


def test_errors_say_what_to_do() -> None:
    silent = [(error.place, error.text) for error in ERRORS if not error.parts[1]]
    assert [error for error in silent if not error[1].endswith(": {ERROR}")] == []
    internal = [error for error in ERRORS if error.text.startswith("Internal error")]
    assert {error.parts[1] for error in internal} == {"Please report this."}


def silent_audio() -> None:
    prepare_driving_audio(Waveform(torch.zeros(1, 16_000), 16_000))


def no_face() -> None:
    source = ImageBatch(torch.zeros(2, 8, 8, 3), Fraction(25))
    FaceTrack(source, np.full((2, 3, 2), np.nan))


def no_library() -> None:
    raise cannot_import("OpenCV", "opencv-contrib-python", ModuleNotFoundError("No module named 'cv2'"))


def out_of_memory() -> None:
    raise out_of_memory_error(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"))


def unknown_setting() -> None:
    LipSyncPipeline.untrained()("talk.mp4", "speech.wav", stepz=3)


def other_weights() -> None:
    check_shapes({"a": (1,)}, {"b": (2,)}, "unet.pt")


@pytest.mark.parametrize("fail", [silent_audio, no_face, no_library, out_of_memory, unknown_setting, other_weights])
def test_raised_errors_are_in_the_table(fail: Callable[[], None]) -> None:
    with pytest.raises(LatentSyncError) as caught:
        fail()
    kind = type(caught.value).__name__
    patterns = [re.sub(r"\\\{.*?\\\}", ".+", re.escape(message.text)) for message in MESSAGES if message.kind == kind]
    assert any(re.match(pattern.partition(r"\ You\ can\ also\ ")[0], str(caught.value)) for pattern in patterns)
