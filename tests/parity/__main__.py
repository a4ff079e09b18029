"""Print how far this implementation is from recorded results: `python -m tests.parity FILE.npz...`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.parity.checks import check, skipped


def main(paths: list[str]) -> int:
    """Returns the exit status: 1 when a case misses its tolerance, 2 without files."""
    if not paths:
        print("usage: python -m tests.parity FILE.npz...", file=sys.stderr)
        return 2
    failures = 0
    for path in map(Path, paths):
        for name, errors in check(path):
            good = all(error.holds for error in errors)
            failures += not good
            print(f"{'ok  ' if good else 'FAIL'} {path.stem}/{name}: {', '.join(map(str, errors))}", flush=True)
        for name, kind in skipped(path):
            print(f"skip {path.stem}/{name}: no check for cases of kind {kind}", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
