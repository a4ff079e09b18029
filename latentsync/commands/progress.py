"""Progress bars of the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def shown(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on under a progress bar on stderr."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=what, total=total, file=sys.stderr))
