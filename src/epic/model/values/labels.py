# SPDX-License-Identifier: Apache-2.0
"""Label selectors, as Kubernetes writes and reads them: `app=shop,tier!=test,zone in (a,b),old,!new`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from epic.errors import Invalid

Operator = Literal["in", "notin", "exists", "absent"]

_MAX_LENGTH = 4096
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9][-a-z0-9.]{{0,252}}/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_EQUALITY = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*({_VALUE})\s*")
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EXISTENCE = re.compile(rf"\s*(!?)\s*({_KEY})\s*")
_ONE_VALUE = re.compile(_VALUE)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label; `values` are for `in` and `notin`."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet it. An object without the label is `notin` anything."""
        match self.operator:
            case "in":
                return labels.get(self.key) in self.values
            case "notin":
                return labels.get(self.key) not in self.values
            case "exists":
                return self.key in labels
            case "absent":
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Conditions that must all be met; without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(text: str) -> LabelSelector:
    """The selector that the text says; raises Invalid."""
    if len(text) > _MAX_LENGTH:
        raise Invalid(f"label selector: longer than {_MAX_LENGTH} characters")
    if not text.strip():
        return LabelSelector()
    return LabelSelector(tuple(_requirements(text)))


def _requirements(text: str) -> Iterator[Requirement]:
    position = 0
    while True:
        requirement, position = _requirement(text, position)
        yield requirement
        if position == len(text):
            return
        if text[position] != ",":
            raise _invalid(text, position)
        position += 1


def _requirement(text: str, position: int) -> tuple[Requirement, int]:
    if found := _SET.match(text, position):
        values = frozenset(value.strip() for value in found[3].split(","))
        if not all(_ONE_VALUE.fullmatch(value) for value in values):
            raise _invalid(text, found.start(3))
        return Requirement(found[1], "in" if found[2] == "in" else "notin", values), found.end()
    if found := _EQUALITY.match(text, position):
        operator: Operator = "notin" if found[2] == "!=" else "in"
        return Requirement(found[1], operator, frozenset((found[3],))), found.end()
    if found := _EXISTENCE.match(text, position):
        return Requirement(found[2], "absent" if found[1] else "exists"), found.end()
    raise _invalid(text, position)


def _invalid(text: str, position: int) -> Invalid:
    return Invalid(
        f"label selector {text!r}: not understood from {text[position : position + 40]!r} on; "
        "expected KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (A,B) or KEY notin (A,B), with commas between"
    )
