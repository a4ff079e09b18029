"""Expand tokens in filename_prefix. ComfyUI's page expands tokens only for its own save nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

DATE_PARTS = {"d": "day", "M": "month", "h": "hour", "m": "minute", "s": "second"}
UNSAFE_IN_NAMES = r'[/?<>\\:*|"\x00-\x1F\x7F]'


def expand_tokens(prefix: str, prompt: Mapping[str, Any] | None, now: datetime) -> str:
    """Replace `%date:yyyy-MM-dd%` and `%Node.input%` like ComfyUI's SaveVideo. Unknown tokens stay unchanged.

    Args:
        prompt: the running graph, which holds the inputs of each node.
    """

    def value(match: re.Match[str]) -> str:
        token = match[1]
        if token.startswith("date:") and "." not in token:
            return re.sub("dd?|MM?|hh?|mm?|ss?|yyy?y?", lambda part: _date_part(part[0], now), token[5:])
        name, _, field = token.partition(".")
        nodes = list((prompt or {}).values())
        named = [node for node in nodes if node.get("class_type") == name]
        named = named or [node for node in nodes if node.get("_meta", {}).get("title") == name]
        chosen = named[0].get("inputs", {}).get(field) if named else None
        if chosen is None or isinstance(chosen, list | dict):  # a list is a connection
            return match[0]
        return re.sub(UNSAFE_IN_NAMES, "_", str(chosen))

    return re.sub("%([^%]+)%", value, prefix)


def _date_part(pattern: str, now: datetime) -> str:
    if pattern[0] in DATE_PARTS:
        return str(getattr(now, DATE_PARTS[pattern[0]])).zfill(len(pattern))
    return {"yy": f"{now.year % 100:02}", "yyyy": str(now.year)}.get(pattern, pattern)
