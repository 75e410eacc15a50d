# SPDX-License-Identifier: Apache-2.0
"""What the kernel refused: when it is tried again, and what is said of it, however much it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from epic.agent.gateway.plans import plan
from epic.log_rate import LogRate

_FIRST_SECONDS, _MOST_SECONDS = 1.0, 30.0
_SHOWN = 5
_WHAT: Mapping[type, str] = {
    plan.SetTunnel: "its tunnels cannot be set",
    plan.SetEndpoints: "packets to its endpoints cannot be sent through tunnels",
    plan.AttachInstance: "its interface cannot be attached",
    plan.DeliverTo: "its packets cannot be delivered",
}


class Failure(NamedTuple):
    """An action that failed, and why."""

    action: plan.Action
    reason: str


class Failures:
    """Those of one round after the other.

    Tunnels, what is sent through them, and delivery to second addresses are many and fail for long: they are
    tried again at once when a tunnel has made room or the node has changed, else after growing times. What
    has not failed as it is now never waits. A round is: `begin`; `due` and `note` for what is to be done;
    `conclude`.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._rate = LogRate(log)
        self._clock = clock
        self._held: dict[Hashable, Failure] = {}
        self._round: list[Failure] = []
        self._seconds = 0.0
        self._until = 0.0
        self._holding = False
        self._changed = False
        self._groups: frozenset[tuple[type, str]] = frozenset()
        self.problems: tuple[str, ...] = ()
        """What fails now, a few lines."""
        self.by_gateway: Mapping[str, str] = {}
        """Why gateways do not have what they need on this node."""
        self.of_second_family: Mapping[str, str] = {}
        """Why gateways that are served at their IPv4 addresses are not at the others."""

    def try_again(self) -> None:
        """The node is another: what failed may succeed."""
        # Also in the middle of a round, when some of it may have been tried too early.
        self._until, self._changed = 0.0, True

    def begin(self) -> None:
        """A round begins."""
        self._round, self._changed = [], False
        self._holding = self._clock() < self._until

    def due(self, actions: Iterable[plan.Action]) -> list[plan.Action]:
        """Those to be done now; the others have failed and are noted as such."""
        if not self._holding:
            return list(actions)
        found: list[plan.Action] = []
        for action in actions:
            before = self._held.get(_key(action))
            if before is not None and before.action == action:
                self._round.append(before)
            else:
                found.append(action)
        return found

    def note(self, done: Iterable[plan.Action], failures: Sequence[Failure]) -> None:
        """What became of actions."""
        self._round += failures
        failed = {id(failure.action) for failure in failures}
        self._changed |= any(isinstance(a, plan.DeleteTunnel) and id(a) not in failed for a in done)

    def conclude(self) -> float | None:
        """The round ends: after how many seconds to try again what failed, None if nothing did."""
        self._held = {key: f for f in self._round if (key := _key(f.action)) is not None}
        self._say()
        if not self._round:
            self._seconds = self._until = 0.0
            return None
        if self._changed:
            self._seconds = self._until = 0.0
        elif not self._holding:
            self._seconds = min(max(2 * self._seconds, _FIRST_SECONDS), _MOST_SECONDS)
            self._until = self._clock() + self._seconds
        if self._changed or len(self._held) < len(self._round):
            return _FIRST_SECONDS
        return max(self._until - self._clock(), 0.0)

    def _say(self) -> None:
        gateways: dict[str, str] = {}
        second: dict[str, str] = {}
        groups: dict[tuple[type, str], list[plan.Action]] = {}
        for action, reason in self._round:
            groups.setdefault((type(action), reason), []).append(action)
            gateway = plan.gateway_of(action)
            if gateway is not None and plan.is_of_second_family(action):
                second[gateway] = f"packets to its IPv6 address cannot be delivered: {reason}"
            elif gateway is not None and type(action) in _WHAT:
                gateways.setdefault(gateway, f"{_WHAT[type(action)]}: {reason}")
        self.by_gateway, self.of_second_family = gateways, second
        # While most of them wait, the numbers alone are not worth saying.
        if self._holding and groups.keys() == self._groups:
            return
        self._groups = frozenset(groups)
        lines = [_line(actions, reason) for (_, reason), actions in groups.items()]
        more = len(self._round) - sum(len(actions) for actions in list(groups.values())[:_SHOWN])
        rest = (f"cannot do {more} more, for {len(lines) - _SHOWN} other reasons",) if more else ()
        before, self.problems = self.problems, (*lines[:_SHOWN], *rest)
        if self.problems and self.problems != before:
            self._rate.warning("%s", "; ".join(self.problems))
        elif before and not self.problems:
            self._log.info("over: %s", "; ".join(before))


def _key(action: plan.Action) -> Hashable:
    """What is held back when it has failed is known by."""
    match action:
        case plan.SetTunnel(tunnel):
            return tunnel.id
        case plan.SetEndpoints(gateway):
            return gateway
        case plan.DeliverTo(instance) if plan.is_of_second_family(action):
            return instance.interface
        case _:
            return None


def _line(actions: Sequence[plan.Action], reason: str) -> str:
    gateways = {plan.gateway_of(action) for action in actions} - {None}
    others = f" of {len(gateways)} gateways" if len(gateways) > 1 else ""
    more = f", and {len(actions) - 1} more like it{others}" if len(actions) > 1 else ""
    return f"cannot {actions[0]}{more}: {reason}"
