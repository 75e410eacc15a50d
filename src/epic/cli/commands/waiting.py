# SPDX-License-Identifier: Apache-2.0
"""Waiting until a node is as a command wants it, and saying meanwhile what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from epic.cli.printing.fields import Row, condition
from epic.cli.printing.phases import counted, instances, is_true, phase, waits_for, worries
from epic.client import PREFIX, EpicClient
from epic.errors import EpicError, NotFound, Unavailable

_PAUSE_SECONDS = 1.0

Say = Callable[[str], None]


class TimedOut(EpicError):
    """The node is not as wanted within the time given; what was begun goes on."""


@dataclass(frozen=True)
class Goal:
    """What is waited for: `reached` tells it from the node, which is None when there is none."""

    words: str
    reached: Callable[[Row | None], bool]
    hint: str = ""


def _drained(node: Row | None) -> bool:
    return node is not None and is_true(node, "Drained")


def _serving(node: Row | None) -> bool:
    if node is None or condition(node, "BGPEstablished").get("status") == "False":
        return False
    return phase(node) == "Ready" and instances(node).keys() <= {"Serving"}


def _dropped(node: Row | None) -> bool:
    return node is not None and not is_true(node, "DropHeld")


DRAINED = Goal(
    "drained",
    _drained,
    "connections get their time, NoOtherHeard waits for a router unless --unheard-ok is given; "
    "epicctl node uncordon {name} takes it back",
)
SERVING = Goal("serving", _serving, "see epicctl status, and epicctl get runs")
GONE = Goal(
    "removed",
    lambda node: node is None,
    "a node that is lost never confirms; epicctl node remove {name} --force goes on without it",
)
DROPPED = Goal("done with what it held back", _dropped, "see epicctl get node {name} -o yaml")


def wait(client: EpicClient, name: str, goal: Goal, timeout: float, say: Say) -> None:
    """Return when the node is as wanted; each change on the way is said.

    A control plane that does not answer is asked again: it may just be restarting.

    Raises:
        TimedOut: it is not so within `timeout` seconds.
        NotFound: there is no such node, and the goal is not that there be none.
    """
    deadline = time.monotonic() + timeout
    last = ""
    while True:
        try:
            node = _read(client, name)
            if goal.reached(node):
                say(f"node {name} is {goal.words}")
                return
            if node is None:
                raise NotFound(f"node {name!r} was removed meanwhile")
            now = describe(node)
        except Unavailable as error:
            now = f"{error}; trying again"
        if now != last:
            say(f"{name}: {now}")
        last = now
        if time.monotonic() >= deadline:
            hint = goal.hint.format(name=name)
            raise TimedOut(f"node {name} is not {goal.words} after {timeout:g} s ({now}); it goes on. {hint}")
        time.sleep(_PAUSE_SECONDS)


def describe(node: Row) -> str:
    """How the node is, in one line."""
    waits = [f"waits for {what}" for what in [waits_for(node)] if what]
    return "; ".join((f"{phase(node)}, {counted(instances(node))}", *waits, *worries(node)))


def _read(client: EpicClient, name: str) -> Row | None:
    body = client.find(f"{PREFIX}/nodes/{name}")
    return None if body is None else body["node"]
