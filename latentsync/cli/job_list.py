"""Read the jobs of a batch from a file with one job per line, or from two folders."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from ..errors import UsageError, reason_of
from ..output.formats import format_named
from . import run

AddMistake = Callable[[str, object], None]
"""Takes the name of a job and an error."""

NO_MEDIA = {".json", ".jsonl", ".csv", ".txt", ".md"}


def read_jobs(args: argparse.Namespace, add_mistake: AddMistake) -> list[tuple[str, Mapping[str, Any]]]:
    """Each job with its name and its fields. Invalid lines become mistakes, each with the name of its line.

    Raises:
        UsageError: the file or a folder cannot be read.
    """
    if args.jobs is not None and (args.videos is not None or args.audios is not None):
        raise UsageError('JOBS and the flags "--videos" and "--audios" exclude each other. Remove JOBS or both flags.')
    try:
        if args.jobs is None:
            return list(_pair_files(args, add_mistake))
        text = args.jobs.read_text(encoding="utf-8-sig")
        reader = _read_csv if args.jobs.suffix.lower() == ".csv" else _read_json_lines
        return list(reader(text, add_mistake))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{args.jobs or args.videos} cannot be read ({reason_of(error)}). Check the jobs.") from error


def _read_json_lines(text: str, add_mistake: AddMistake) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # splitlines() would also split at characters that are valid inside JSON strings
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                fields = json.loads(line)
            except ValueError as error:
                add_mistake(f"Line {number}", f"It is not JSON ({error}).")
                continue
            if isinstance(fields, dict):
                yield f"Line {number}", fields
            else:
                add_mistake(f"Line {number}", 'It is not a JSON object, such as {"video": "talk.mp4"}.')


def _read_csv(text: str, add_mistake: AddMistake) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True)
    for row in reader:
        name = f"Line {reader.line_num}"
        if None in row:
            add_mistake(name, "The line has more cells than the first line has names.")
            continue
        # an empty cell means the default
        yield name, {key: {"true": True, "false": False}.get(cell, cell) for key, cell in row.items() if cell}


def _pair_files(args: argparse.Namespace, add_mistake: AddMistake) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A job for each video and the recording of the same name."""
    if args.videos is None or args.audios is None:
        raise UsageError('A batch needs JOBS, or "--videos" and "--audios". Provide a file of jobs, or both folders.')
    videos, audios = _media_files(args.videos, add_mistake), _media_files(args.audios, add_mistake)
    for stem in sorted(videos.keys() | audios.keys()):
        if stem in videos and stem in audios:
            yield videos[stem].name, {"video": str(videos[stem]), "audio": str(audios[stem])}
        elif stem in videos:
            add_mistake(videos[stem].name, f"No recording in {args.audios} has the name {stem}.")
        else:
            add_mistake(audios[stem].name, f"No video in {args.videos} has the name {stem}.")


def _media_files(folder: Path, add_mistake: AddMistake) -> dict[str, Path]:
    """The files of a folder by their names without suffix."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in NO_MEDIA:
            if path.stem in files:
                add_mistake(path.name, f"{files[path.stem].name} has the same name. Rename one of them.")
            files[path.stem] = path
    return files


class JobParser(argparse.ArgumentParser):
    """The parser of `run` for the fields of a job. A mistake raises an exception."""

    @override
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"Wrong field ({message}). Use the flags of run.")


def parse_job(fields: Mapping[str, Any], args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of `run` for a job. Flags of the batch are the defaults of its jobs.

    Raises:
        UsageError: a field is missing, unknown or wrong.
    """
    parser = JobParser(prog="job", add_help=False, allow_abbrev=False)
    run.add_job_options(parser)
    known = vars(parser.parse_args(["video", "audio", "--output", "output"]))
    values = {name: value for name, value in fields.items() if value is not None}
    video, audio, output = (str(values.pop(name, "")) for name in ("video", "audio", "output"))
    if not video or not audio:
        raise UsageError('A job needs the fields "video" and "audio". Provide both fields.')
    if not output and args.out is None:
        raise UsageError('A job needs the field "output", or the batch needs "--out". Provide the field or the flag.')
    format = values.get("format") or args.format
    words = [f"--output={output or '{stem}' + (format_named(str(format)).suffix if format else '.mp4')}"]
    for name, value in values.items():
        flag = name.replace("_", "-")
        if value is True or value is False:
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (str, int, float)):
            words.append(f"--{flag}={value}")
        else:
            raise UsageError(f'The field "{name}" is a list or an object. Use a text, a number, true or false.')
    defaults = {name: value for name, value in vars(args).items() if name in known and name != "command"}
    task = parser.parse_args([*words, "--", video, audio], argparse.Namespace(**defaults))
    for name, value in vars(task).items():
        if isinstance(value, Path):
            folder = args.out if name == "output" and args.out is not None else Path()
            setattr(task, name, (folder / str(value).replace("{stem}", task.video.stem)).absolute())
    if not task.save_record:
        raise UsageError("A batch needs the run records to know which jobs are finished. Remove no-save-record.")
    return task
