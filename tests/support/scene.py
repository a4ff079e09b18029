"""One attack: its input, how it is given, and the expected error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.sample_clip import Sample


@dataclass(frozen=True)
class Scene:
    """Where an attack takes place.

    folder: its own, empty.
    good: a whole clip with its sound and landmarks.
    models: a whole models folder; not to be changed.
    """

    folder: Path
    good: Sample
    models: Path

    @property
    def output(self) -> Path:
        return self.folder / "out.mp4"

    def run(
        self,
        *more: object,
        video: Path | None = None,
        audio: Path | None = None,
        landmarks: Path | None = None,
        output: Path | None = None,
    ) -> list[str]:
        """Arguments of `run` with untrained networks, good wherever nothing else is said."""
        given = [video or self.good.video, audio or self.good.audio, "-o", output or self.output]
        quick = [
            "--miniature",
            "--steps",
            1,
            "--cfg",
            1,
            "--no-save-record",
            "--face-landmarks",
            landmarks or self.good.landmarks,
        ]
        return ["run", *map(str, [*given, *quick, *more])]

    def search(self, landmarks: Path) -> list[str]:
        """Arguments of `faces`, which reads landmarks as `run` does, and needs no networks."""
        return ["faces", str(self.good.video), "--face-landmarks", str(landmarks), "-o", str(self.folder / "faces.png")]

    def written(self, name: str, content: bytes | str) -> Path:
        """A file of this content in the attack's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@dataclass(frozen=True)
class Attack:
    """One broken or hostile input.

    case: what is given, in a few words.
    arguments: of the command line that is given it.
    said: a pattern that the one line on stderr must hold.
    status: of the command line.
    needs: what this system must have.
    """

    case: str
    arguments: Callable[[Scene], list[str]]
    said: str
    status: int = 1
    needs: str = ""


@dataclass(frozen=True)
class Misuse:
    """One broken value through the library, as the nodes use it.

    call: must raise an error of the package's tree.
    said: a pattern that its message must hold.
    """

    case: str
    call: Callable[[Scene], Any]
    said: str
