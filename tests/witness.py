"""What the attacks saw: rows of the table in docs/reliability.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

BEGIN, END = "<!-- written by `make faults`: begin -->", "<!-- written by `make faults`: end -->"
TEMPORARY = re.compile(r"[^\s'`]*/pytest-of-[^/]*/pytest-\d+/")  # folders of a test run
PARTS = ("Bad input", "Names that must work", "Security", "Determinism", "Faults", "Load")


@dataclass(frozen=True, order=True)
class Row:
    """One attack.

    part: of the table, see PARTS.
    case: what was done.
    door: through which way in.
    happened: what came of it.
    """

    part: str
    case: str
    door: str
    happened: str

    def __str__(self) -> str:
        return f"| {_cell(self.case)} | {_cell(self.door)} | {_cell(self.happened)} |"


@dataclass
class Witness:
    """Gathers rows while the attacks run."""

    rows: list[Row] = field(default_factory=list)

    def saw(self, part: str, case: str, door: str, happened: str) -> None:
        assert part in PARTS
        self.rows.append(Row(part, case, door, happened))

    def write(self, document: Path) -> None:
        """Put the rows into the document; those of attacks that did not run this time stay."""
        text = document.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        written, _, tail = rest.partition(END)
        latest = {(row.part, row.case, row.door): row for row in [*read_rows(written), *self.rows]}
        document.write_text(f"{head}{BEGIN}\n{_tables(list(latest.values()))}{END}{tail}", encoding="utf-8")


def read_rows(text: str) -> list[Row]:
    """The rows of tables as `Witness.write` writes them."""
    rows: list[Row] = []
    part = ""
    for line in text.splitlines():
        if line.startswith("## "):
            part = line[3:].partition(" (")[0]
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "| attack":
            rows.append(Row(part, cells[0][2:], cells[1], cells[2].removesuffix(" |")))
    return rows


def _tables(rows: list[Row]) -> str:
    ordered = sorted(rows, key=lambda row: PARTS.index(row.part))
    tables = []
    for part, some in groupby(ordered, key=lambda row: row.part):
        lines = [str(row) for row in some]
        tables.append(
            "\n".join(
                [f"## {part} ({len(lines)})", "", "| attack | through | what happened |", "|---|---|---|", *lines]
            )
        )
    return "\n\n".join(tables) + "\n"


def _cell(text: str) -> str:
    plain = "".join(letter if letter.isprintable() or letter.isspace() else "?" for letter in text)
    plain = TEMPORARY.sub("", plain)
    return " ".join(plain.split()).replace("|", "/").replace("<", "&lt;")
