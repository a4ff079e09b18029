"""The jobs of a batch: how they are written, what is checked before the first one, and which are finished."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from latentsync.cli import batch, batch_plan, run
from latentsync.cli.main import _parser, main
from latentsync.errors import UsageError
from latentsync.output.run_record import Recorder, RunRecord, describe_weights, digest_file
from latentsync.weights import miniature
from latentsync.weights.catalog import FACE_LANDMARKER, SELFIE_SEGMENTER, SYNCNET
from scripts.sample_clip import Sample

MINIATURE = ("--miniature", "--steps", "2")


def arguments(*words: object) -> argparse.Namespace:
    return _parser().parse_args(["batch", *map(str, words)])


def job_file(folder: Path, *jobs: Mapping[str, Any] | str) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs), encoding="utf-8")
    return path


def files_of(good: Sample) -> dict[str, str]:
    return {"video": str(good.video), "audio": str(good.audio), "face_landmarks": str(good.landmarks)}


def plan(*words: object) -> list[argparse.Namespace]:
    checked = batch_plan.plan(arguments(*words), batch_plan.Ledger(), Path("batch.json"))
    return [row.job.task for row in checked]


def mistakes(*words: object) -> str:
    with pytest.raises(UsageError) as caught:
        plan(*words)
    return str(caught.value)


def test_job_fields_are_the_flags_of_run(good: Sample, tmp_path: Path) -> None:
    fields = {
        "steps": 7,
        "cfg-start-percent": 0.5,
        "offset_ms": -40,
        "color_match": False,
        "consent": "ü --x",
        "crf": None,
    }
    (job,) = plan(job_file(tmp_path, {**files_of(good), "output": "x.mp4", **fields}), "--out", tmp_path, "--miniature")
    flags = ["--steps=7", "--cfg-start-percent=0.5", "--offset-ms=-40", "--no-color-match", "--consent=ü --x"]
    files = [str(good.video), str(good.audio), "-o", str(tmp_path / "x.mp4")]
    expected = _parser().parse_args(["run", *files, "--miniature", *flags, f"--face-landmarks={good.landmarks}"])
    expected.models = expected.models.absolute()
    del expected.command, expected.cluster, expected.cpus_per_worker  # those of the batch hold for all jobs
    assert vars(job) == vars(expected)


def test_job_csv_reads_as_json_lines(good: Sample, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text(
        f"video, audio, output, steps, color_match, vocals\n{good.video}, {good.audio}, x.mp4, 3, false,\n"
        f'"{good.video}",{good.audio},y.webm,,true,{good.audio}\n',
        encoding="utf-8-sig",
    )
    first, second = plan(tmp_path / "jobs.csv", "--out", tmp_path, *MINIATURE, "--face-landmarks", good.landmarks)
    assert (first.output, first.steps, first.color_match, first.vocals) == (tmp_path / "x.mp4", 3, False, None)
    assert (second.output, second.steps, second.color_match, second.vocals) == (
        tmp_path / "y.webm",
        2,
        True,
        good.audio,
    )


def test_job_names_take_the_stem_of_the_video(good: Sample, tmp_path: Path) -> None:
    fields = {"video": str(good.video), "audio": str(good.video.parent / "{stem}.wav"), "output": "{stem} new.mp4"}
    landmarks = good.video.parent / "{stem}.json"
    (job,) = plan(job_file(tmp_path, fields), "--out", tmp_path, "--miniature", "--face-landmarks", landmarks)
    assert job.audio == good.audio
    assert job.output == tmp_path / f"{good.video.stem} new.mp4"
    assert job.face_landmarks == good.landmarks


def test_job_without_output_has_the_suffix_of_its_format(good: Sample, tmp_path: Path) -> None:
    for fields, suffix in (({}, ".webm"), ({"format": "mov prores 422"}, ".mov")):
        jobs = job_file(tmp_path, {**files_of(good), **fields})
        (job,) = plan(jobs, "--out", tmp_path, "--miniature", "--format", "webm vp9")
        assert job.output.suffix == suffix


def test_batch_workers_need_a_processor(good: Sample, tmp_path: Path) -> None:
    for count in (0, -1):
        with pytest.raises(UsageError, match=f'"--cpus-per-worker" cannot be {count}'):
            batch.batch(arguments(job_file(tmp_path, files_of(good)), "--out", tmp_path, "--cpus-per-worker", count))


def test_miniature_takes_no_other_model_files(good: Sample, tmp_path: Path) -> None:
    job = {**files_of(good), "output": "x.mp4", "version": "1.6"}
    assert '"--miniature" has its own model files' in mistakes(
        job_file(tmp_path, job), "--out", tmp_path, "--miniature"
    )


def test_batch_pairs_folders_by_name(good: Sample, tmp_path: Path) -> None:
    for folder, file in (("videos", good.video), ("audios", good.audio)):
        (tmp_path / folder).mkdir()
        for name in ("a", "b.c"):
            (tmp_path / folder / f"{name}{file.suffix}").write_bytes(file.read_bytes())
    (tmp_path / "videos" / "notes.txt").write_text("not a video", encoding="utf-8")
    words = ["--videos", tmp_path / "videos", "--audios", tmp_path / "audios", "--out", tmp_path / "out", *MINIATURE]
    words += ["--face-landmarks", good.landmarks]
    assert [(job.audio.name, job.output) for job in plan(*words)] == [
        ("a.wav", tmp_path / "out" / "a.mp4"),
        ("b.c.wav", tmp_path / "out" / "b.c.mp4"),
    ]
    (tmp_path / "videos" / "lonely.mp4").write_bytes(good.video.read_bytes())
    (tmp_path / "audios" / "a.mp3").write_bytes(b"")
    said = mistakes(*words)
    assert "lonely.mp4: No recording" in said
    assert "a.wav: a.mp3 has the same name" in said


BROKEN = [
    ('{"video": "talk', "It is not JSON"),
    ("[1, 2]", "It is not a JSON object"),
    ({"audio": None}, 'needs the fields "video" and "audio"'),
    ({"video": "nowhere.mp4"}, "nowhere.mp4 does not exist"),
    ({"vocals": "nowhere.wav"}, "nowhere.wav does not exist"),
    ({"steps": "many"}, "argument --steps: invalid int value"),
    ({"stepz": 3}, "unrecognized arguments: --stepz=3"),
    ({"step": 3}, "unrecognized arguments: --step=3"),
    ({"steps": [1, 2]}, 'The field "steps" is a list'),
    ({"silence": "loud"}, "argument --silence: invalid choice"),
    ({"cfg": 0.5}, "cfg"),
    ({"threshold_db": 50}, '"threshold_db" cannot be 50'),
    ({"max_yaw": 100}, '"max_yaw" cannot be 100'),
    ({"face_index": 0}, '"--face-index" cannot be 0'),
    ({"seed": 2**64}, '"seed" cannot be'),
    ({"output": "out.avi"}, ".avi"),
    ({"output": "no/such/folder/out.mp4"}, "does not exist. Create this folder"),
    ({"output": "batch.mp4"}, "the same name as the output of the report"),
    ({"save_record": False}, "needs the run records"),
    ({"format": "webm vp9"}, "wrong extension"),
]


def test_batch_tells_all_mistakes_at_once(good: Sample, tmp_path: Path) -> None:
    """Thirty broken jobs, and two good ones. No file is written."""
    (tmp_path / "words.mp4").write_text("not a video", encoding="utf-8")
    broken = [
        *BROKEN,
        ({"video": str(tmp_path / "words.mp4")}, "words.mp4 cannot be opened as a video"),
        ({"audio": str(tmp_path / "words.mp4")}, "words.mp4"),
        *[({"output": "good.webm"}, "the same name as the output of Line 1")] * 8,
    ]
    assert len(broken) == 30
    jobs = [
        fields if isinstance(fields, str) else {**files_of(good), "output": f"{i}.mp4", **fields}
        for i, (fields, _) in enumerate(broken)
    ]
    good_job = {**files_of(good), "output": "good.mp4"}
    path = job_file(tmp_path, good_job, *jobs, {**good_job, "output": "other.mp4"})
    arguments_ = arguments(path, "--out", tmp_path / "out", *MINIATURE)
    with pytest.raises(UsageError) as caught:
        batch_plan.plan(arguments_, batch_plan.Ledger(), tmp_path / "out" / "batch.json")
    told = str(caught.value).splitlines()
    for line, (_, text) in enumerate(broken, start=2):
        assert [said for said in told if said.startswith(f"  Line {line}: ") and text in said], (line, text)
    assert not [said for said in told if said.startswith(("  Line 1: ", f"  Line {len(broken) + 2}: "))]
    assert f"LatentSync found {len(told) - 1} mistakes" in told[0]
    assert list((tmp_path / "out").iterdir()) == []


def test_batch_output_is_no_input_of_another_job(good: Sample, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(good.video.read_bytes())
    path = job_file(
        tmp_path, {**files_of(good), "output": "copy.mp4"}, {**files_of(good), "video": str(copy), "output": "x.mp4"}
    )
    assert "copy.mp4 is an input of Line 2" in mistakes(path, "--out", tmp_path, *MINIATURE)
    assert copy.read_bytes() == good.video.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "A batch needs JOBS"),
        (["--videos", "."], "A batch needs JOBS"),
        (["jobs.jsonl", "--videos", "."], "exclude each other"),
        (["nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["--videos", "nowhere", "--audios", "."], "nowhere cannot be read"),
    ],
)
def test_batch_refuses_to_guess_its_jobs(words: list[str], said: str) -> None:
    assert said in mistakes(*words)


def test_batch_without_jobs_or_models_says_so(good: Sample, tmp_path: Path) -> None:
    assert "has no jobs" in mistakes(job_file(tmp_path, ""), "--out", tmp_path, *MINIATURE)
    said = mistakes(job_file(tmp_path, files_of(good)), "--out", tmp_path, "--models", tmp_path / "none")
    assert "Line 1: Model files are missing" in said


def test_batch_checks_detector_and_syncnet_first(good: Sample, tmp_path: Path) -> None:
    """A job with landmarks needs no detector, and one without a score needs no SyncNet."""
    files, detected = files_of(good), {"video": str(good.video), "audio": str(good.audio)}
    jobs = [
        {**files, "output": "a.mp4"},
        {**detected, "output": "b.mp4"},
        {**files, "output": "c.mp4", "takes": 2},
        {**files, "output": "d.mp4", "min_sync_confidence": 3},
        {**files, "output": "e.mp4", "occlusion": "auto"},
    ]
    said = mistakes(job_file(tmp_path, *jobs), "--out", tmp_path, *MINIATURE, "--models", tmp_path / "none")
    assert "found 4 mistakes" in said
    for line, file in ((2, FACE_LANDMARKER), (3, SYNCNET), (4, SYNCNET), (5, SELFIE_SEGMENTER)):
        name = Path(file.path).name
        assert re.search(rf"Line {line}: Model files are missing \(1\):\n *{name}", said), said


def test_batch_dry_run_prints_the_plan(good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["batch", str(job_file(tmp_path, files_of(good))), "--out", str(tmp_path), *MINIATURE, "--dry-run"]) == 0
    )
    assert "waiting   Line 1" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.jsonl"]


def test_batch_never_replaces_another_file_with_its_report(good: Sample, tmp_path: Path) -> None:
    (tmp_path / "batch.json").write_text("[]", encoding="utf-8")
    assert main(["batch", str(job_file(tmp_path, files_of(good))), "--out", str(tmp_path), *MINIATURE]) == 2
    assert (tmp_path / "batch.json").read_text(encoding="utf-8") == "[]"


@pytest.mark.parametrize("name", ["cuda:99", "toaster", ""])
def test_batch_refuses_devices_that_do_not_exist(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = [str(job_file(tmp_path, files_of(good))), "--out", str(tmp_path), *MINIATURE, "--devices", f"cpu,{name}"]
    assert main(["batch", *words]) == 2
    assert '"--devices" cannot contain' in capsys.readouterr().err


@pytest.fixture
def finished(good: Sample, whole_models: Path, tmp_path: Path) -> argparse.Namespace:
    """A job with an output and a record as a run leaves them."""
    (tmp_path / "talk.wav").write_bytes(good.audio.read_bytes())
    fields = {"video": str(good.video), "audio": str(tmp_path / "talk.wav"), "output": "out.mp4"}
    more = ("--face-landmarks", good.landmarks, "--models", whole_models)
    (task,) = plan(job_file(tmp_path, fields), "--out", tmp_path, *MINIATURE, *more)
    record = RunRecord(flags=run.recorded_flags(task))
    roles = ("video", "audio", "face_landmarks")
    record.inputs.extend(digest_file(role, getattr(task, role)) for role in roles)
    record.model_files.extend(describe_weights(path) for path in miniature.files())
    with Recorder(task.output, record):
        task.output.write_bytes(b"video")
    assert is_finished(task)
    return task


def is_finished(task: argparse.Namespace) -> bool:
    from latentsync.batch import Job

    return batch_plan.Ledger().is_finished(Job("a", task, task.output, None, None, 0.0))


OTHER_VALUES = {str: "other", int: 3, float: 0.75, bool: False}


def test_finished_job_is_run_again_after_any_change_of_flags(finished: argparse.Namespace) -> None:
    """Each flag in turn has another value, also those that are added in future."""
    changed = [name for name in vars(finished) if name not in run.NOT_RECORDED]
    assert {"steps", "seed", "speed", "cfg", "crf", "audio_track", "precision", "consent", "miniature"} <= set(changed)
    for name in changed:
        value = getattr(finished, name)
        other = OTHER_VALUES[type(value)] if value is not None and value != OTHER_VALUES[type(value)] else "other"
        assert not is_finished(argparse.Namespace(**{**vars(finished), name: other})), name


def test_finished_job_depends_on_content_of_its_files(finished: argparse.Namespace, good: Sample) -> None:
    sound = finished.audio.read_bytes()
    finished.audio.write_bytes(sound[:-2] + b"xx")
    assert not is_finished(finished)
    finished.audio.write_bytes(sound)
    assert is_finished(finished)
    assert not is_finished(argparse.Namespace(**{**vars(finished), "vocals": good.audio}))
    assert not is_finished(argparse.Namespace(**{**vars(finished), "face_landmarks": None}))


@pytest.mark.parametrize("content", ["", "{}", "[1]", "not JSON", '{"outcome": "done", "output": null}'])
def test_finished_job_needs_a_whole_record(finished: argparse.Namespace, content: str) -> None:
    finished.output.with_suffix(".json").write_text(content, encoding="utf-8")
    assert not is_finished(finished)


def test_finished_job_needs_its_output(finished: argparse.Namespace) -> None:
    finished.output.write_bytes(b"")
    assert not is_finished(finished)
    finished.output.unlink()
    assert not is_finished(finished)


@pytest.mark.parametrize("outcome", ["unfinished", "failed", "cancelled"])
def test_finished_job_has_the_outcome_done(finished: argparse.Namespace, outcome: str) -> None:
    path = finished.output.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"outcome": outcome}), encoding="utf-8")
    assert not is_finished(finished)


def test_finished_job_is_run_again_with_another_model(finished: argparse.Namespace) -> None:
    assert not is_finished(argparse.Namespace(**{**vars(finished), "miniature": False}))
