"""Covering arrays of strength two (Cohen et al. 1997, "The AETG System"): every pair of values in at least one case.

What does not go together is not written down anywhere: an oracle is asked, and what it refuses is shrunk to the fewest
settings that it still refuses.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Array", "covering"]

Settings = dict[str, Any]
Chosen = frozenset[tuple[str, int]]
"""Names of arguments with the places of their values."""

_ATTEMPTS = 12
"""Rows that are tried for a pair; a pair for which all are refused for other reasons than the pair is given up."""


@dataclass
class Array:
    """What covers the pairs.

    Attributes:
        cases: accepted settings, which have every pair that can be had.
        conflicts: the fewest settings that are refused, each.
        given_up: pairs that are in no case though nothing is known against them.
    """

    cases: list[Settings] = field(default_factory=list)
    conflicts: list[Settings] = field(default_factory=list)
    given_up: list[Settings] = field(default_factory=list)


def covering(values: Mapping[str, Sequence[Any]], accepts: Callable[[Settings], bool], seed: int = 1) -> Array:
    """Makes an array greedily, the same one each time.

    Args:
        values: of each argument; the first one of each together must be accepted.
        accepts: tells whether settings of all arguments go together.
        seed: of the choices between values that are equally good.

    Raises:
        ValueError: the first values do not go together.
    """
    return _Maker(values, accepts, random.Random(seed)).make()


class _Maker:
    def __init__(self, values: Mapping[str, Sequence[Any]], accepts: Callable[[Settings], bool], chance: random.Random):
        self.values, self.accepts, self.chance = values, accepts, chance
        self.conflicts: list[Chosen] = []

    def make(self) -> Array:
        array, first = Array(), dict.fromkeys(self.values, 0)
        if not self._accepted(first):
            raise ValueError(f"The first values do not go together: {self._settings(first.items())}.")
        array.cases.append(self._settings(first.items()))
        wanted = dict.fromkeys(self._pairs())
        _strike(wanted, first)
        while wanted:
            pair = next(iter(wanted))
            row = next(filter(None, (self._row(pair, wanted) for _ in range(_ATTEMPTS))), None)
            if row is not None:
                array.cases.append(self._settings(row.items()))
                _strike(wanted, row)
                continue
            del wanted[pair]
            if not any(conflict <= pair for conflict in self.conflicts):
                array.given_up.append(self._settings(pair))
        array.conflicts = [self._settings(each) for each in self.conflicts]
        return array

    def _pairs(self) -> Iterator[Chosen]:
        places = {name: [(name, place) for place in range(len(each))] for name, each in self.values.items()}
        if len(places) == 1:
            yield from (frozenset([each]) for each in next(iter(places.values())))
        for left, right in itertools.combinations(places.values(), 2):
            yield from map(frozenset, itertools.product(left, right))

    def _row(self, pair: Chosen, wanted: Mapping[Chosen, None]) -> dict[str, int] | None:
        row = dict(pair)
        others = [name for name in self.values if name not in row]
        self.chance.shuffle(others)
        for name in others:
            places = list(range(len(self.values[name])))
            self.chance.shuffle(places)
            allowed = [place for place in places if not self._conflicting({**row, name: place})]
            if not allowed:
                return None
            row[name] = max(
                allowed, key=lambda place: sum(frozenset([(name, place), each]) in wanted for each in row.items())
            )
        if self._conflicting(row):
            return None
        if self._accepted(row):
            return row
        self.conflicts.append(self._shrunk(row))
        return None

    def _shrunk(self, row: dict[str, int]) -> Chosen:
        for name in [name for name, place in row.items() if place]:
            fewer = {**row, name: 0}
            if not self._accepted(fewer):
                row = fewer
        return frozenset((name, place) for name, place in row.items() if place)

    def _conflicting(self, row: Mapping[str, int]) -> bool:
        return any(conflict <= row.items() for conflict in self.conflicts)

    def _accepted(self, row: Mapping[str, int]) -> bool:
        return self.accepts(self._settings(row.items()))

    def _settings(self, chosen: Any) -> Settings:
        return {name: self.values[name][place] for name, place in sorted(chosen)}


def _strike(wanted: dict[Chosen, None], row: Mapping[str, int]) -> None:
    for size in (1, 2):
        for pair in itertools.combinations(row.items(), size):
            wanted.pop(frozenset(pair), None)
