"""The record of a run replaces an older record, and no other file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentsync.cli.outputs import check_record_path
from latentsync.errors import UsageError
from latentsync.output.run_record import RunRecord


def test_record_path_takes_a_free_name_and_an_older_record(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    check_record_path(path, [None])
    path.write_text(json.dumps(RunRecord().to_json()), encoding="utf-8")
    check_record_path(path, [None])


@pytest.mark.parametrize("content", ["", "{}", "[1]", "not JSON", '{"frames": []}'])
def test_record_path_refuses_another_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"out\.json exists and is not a run record.* add --no-save-record"):
        check_record_path(path, [None])
    assert path.read_text(encoding="utf-8") == content
