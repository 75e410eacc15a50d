# SPDX-License-Identifier: Apache-2.0
"""Carrying out actions in parts: what else is to be done on the kernel's thread comes in between.

The far ends of tunnels that move, siblings' nodes that fall silent, and reports must not wait for all the
tunnels and endpoints of a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from epic.agent.gateway.plans.failures import Failure
from epic.agent.gateway.plans.plan import Action, DeleteEndpoints, SetEndpoints
from epic.agent.runtime.worker import Worker

_AT_ONCE = 32
"""Actions; with so many the thread is held for some milliseconds."""
_ENDPOINTS = 1024
"""They are set at once, and weigh as much."""

Apply = Callable[[list[Action]], list[Failure]]


async def carry_out(worker: Worker, apply: Apply, actions: Iterable[Action]) -> list[Failure]:
    """Do this on the worker's thread by calls of `apply`, in order; returns what failed, each action once."""
    failed: dict[int, Failure] = {}
    for part in _parts(actions):
        wholes = {id(piece): whole for piece, whole in part}
        for failure in await worker.run(apply, [piece for piece, _ in part]):
            whole = wholes[id(failure.action)]
            failed.setdefault(id(whole), Failure(whole, failure.reason))
    return list(failed.values())


def _parts(actions: Iterable[Action]) -> Iterator[list[tuple[Action, Action]]]:
    """Pieces of the actions in order, each with the action that it is, or is a piece of."""
    part: list[tuple[Action, Action]] = []
    weight = 0
    for action in actions:
        for piece in _pieces(action):
            part.append((piece, action))
            weight += _weight(piece)
            if weight >= _AT_ONCE:
                yield part
                part, weight = [], 0
    if part:
        yield part


def _pieces(action: Action) -> Iterator[Action]:
    match action:
        case SetEndpoints(gateway, endpoints) if len(endpoints) > _ENDPOINTS:
            items = iter(endpoints.items())
            while piece := dict(islice(items, _ENDPOINTS)):
                yield SetEndpoints(gateway, piece)
        case DeleteEndpoints(endpoints) if len(endpoints) > _ENDPOINTS:
            keys = iter(endpoints)
            while gone := frozenset(islice(keys, _ENDPOINTS)):
                yield DeleteEndpoints(gone)
        case _:
            yield action


def _weight(action: Action) -> int:
    match action:
        case SetEndpoints(_, endpoints) | DeleteEndpoints(endpoints):
            return 1 + _AT_ONCE * len(endpoints) // _ENDPOINTS
        case _:
            return 1
