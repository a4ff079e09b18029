"""Turns: the times of the finished video at which a person speaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from typing_extensions import override

from ..errors import UsageError

TIMES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*")
PERSON = re.compile(r"\s*([1-9]\d*)\s*:\s*(\S.*)")


class Turn(NamedTuple):
    """A time range in seconds of the finished video. The range does not include `stop`."""

    start: Fraction
    stop: Fraction

    @override
    def __str__(self) -> str:
        return f"{float(self.start):.10g}-{float(self.stop):.10g}"


def parse_turns(text: str) -> tuple[Turn, ...]:
    """Turns from text such as "0-4.5, 9-12". Empty text gives no turns.

    Raises:
        UsageError: the text is not valid, or a turn ends before it begins.
    """
    turns: list[Turn] = []
    for part in text.split(",") if text.strip() else []:
        match = TIMES.fullmatch(part)
        if match is None:
            raise UsageError(f'"turns" cannot be {text}. Enter times in seconds, such as 0-4.5, 9-12.')
        turn = Turn(*(Fraction(seconds) for seconds in match.groups()))
        if turn.start >= turn.stop:
            raise UsageError(f'"turns" contains {turn}, which ends before it begins. Enter a later end.')
        turns.append(turn)
    return tuple(turns)


def parse_turns_of_people(text: str, person: int) -> Mapping[int, tuple[Turn, ...]]:
    """Turns of each person, by number, from text such as "1: 0-4.5, 9-12 / 2: 4.5-9".

    Args:
        person: the number of the person if the text names no person. Empty text gives only this person, without turns.

    Raises:
        UsageError: the text is not valid, or names a person twice.
    """
    if ":" not in text:
        return {person: parse_turns(text)}
    turns: dict[int, tuple[Turn, ...]] = {}
    for part in text.split("/"):
        match = PERSON.fullmatch(part)
        if match is None or int(match[1]) in turns:
            raise UsageError(
                f'"turns" cannot be {text}. Enter each person once, by number, such as 1: 0-4.5, 9-12 / 2: 4.5-9.'
            )
        turns[int(match[1])] = parse_turns(match[2])
    return turns
