# SPDX-License-Identifier: Apache-2.0
"""What comes next in the lives of a gateway's instances, pure.

An instance is led to its goal one acknowledged step after the other; what only one side knows (the node's
agent, a run) is read from the instance, where it was noted. Instances leave service one after the other, and
the last one that serves only when another has taken its place or none can. What no router hears takes
nobody's place, unless an operator has said that it may, nor does what reaches less for want of room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from epic.errors import Exhausted
from epic.lifecycle.goals import Host, Wanted, goals, is_coming, is_serving, may_stand_in
from epic.model.instances import WAITS_FOR_AGENTS, Goal, InstancePhase, ProxyInstance, trouble
from epic.placement import place

OBSTACLES = ("NoOtherHeard", "NoOtherConnected", "NoOtherInstance", WAITS_FOR_AGENTS)
"""What keeps an instance on its node until somebody does something: its reason begins with it."""
_ASKED = "waits until no sibling passes packets on to it"
_UNCONNECTED = {
    "pending": "waits for its tunnels",
    "no-room": "NoRoom: its node has no room for tunnels that others have",
}


@dataclass(frozen=True)
class Step:
    """What is to be done for a gateway now.

    `instances` are those that stay, as they are afterwards; `place` the nodes that get a new one; `runs` the
    nodes that need a run; `dropped` those that are told to drop an instance from now on; `lost` instances
    went with their node; `unplaced` counts those that the gateway is to have and no node has room for.
    """

    instances: tuple[ProxyInstance, ...]
    place: tuple[str, ...] = ()
    runs: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    lost: tuple[ProxyInstance, ...] = ()
    unplaced: int = 0


def advance(
    gateway: str,
    instances: Sequence[ProxyInstance],
    wanted: Wanted,
    hosts: Mapping[str, Host],
    time: datetime,
) -> Step:
    """The next step; without anything to do its instances are those given, and the rest is empty."""
    lost = tuple(i for i in instances if i.node not in hosts or hosts[i.node].lost)
    standing = [i for i in instances if i not in lost and not _is_gone(i, hosts[i.node])]
    aims = goals(gateway, standing, wanted, hosts)
    new = _places(gateway, instances, aims, wanted, hosts)
    unheard = frozenset(name for name, host in hosts.items() if host.candidate.unheard)
    after = list(standing)
    for index, instance in enumerate(standing):
        if hosts[instance.node].unreadable:
            continue
        others = [*after[:index], *after[index + 1 :]]
        view = _View(aims[instance.node], others, wanted, hosts[instance.node], unheard, bool(new))
        after[index] = _stamped(instance, _moved(instance, view), view.goal, time)
    pairs = list(zip(standing, after, strict=True))
    return Step(
        instances=tuple(after),
        place=new,
        runs=frozenset(new) | {a.node for b, a in pairs if _asks_for_run(b, a, wanted, hosts[a.node])},
        dropped=frozenset(a.node for b, a in pairs if b.published and not a.published),
        lost=lost,
        unplaced=_unplaced(wanted, aims, new),
    )


def _is_gone(instance: ProxyInstance, host: Host) -> bool:
    return instance.phase == "Removed" and host.applied


def needs_run(instance: ProxyInstance, wanted: Wanted) -> bool:
    """Whether the instance waits for a run on its node."""
    if instance.phase == "Removed":
        return False
    if instance.phase == "Withdrawn" and instance.goal == "remove":
        return instance.unit != "removed"
    if instance.unit == "outdated":
        return instance.phase == "Withdrawn"
    if wanted.keeps_versions:
        return instance.unit != "current" and bool(instance.envoy_version or wanted.envoy_version)
    return instance.unit != "current" or instance.envoy_version != wanted.envoy_version


def some_version(instances: Iterable[ProxyInstance]) -> str:
    """An Envoy that some of a gateway's instances have, for when it is not known which they are to have."""
    return next((instance.envoy_version for instance in instances if instance.envoy_version), "")


def may_restart(instance: ProxyInstance) -> bool:
    """Whether a run may stop its Envoy: its agent has said that it does not serve, and it is not about to."""
    return instance.phase == "Withdrawn"


def is_left_out(instance: ProxyInstance) -> bool:
    """Whether a run is to remove it from its node, or to leave it removed: it is never made again."""
    if instance.phase == "Removed" or instance.unit == "removed":
        return True
    return instance.phase == "Withdrawn" and instance.goal == "remove"


@dataclass(frozen=True)
class _View:
    """What the next step of an instance depends on besides itself."""

    goal: Goal
    others: list[ProxyInstance]
    wanted: Wanted
    host: Host
    unheard: frozenset[str]
    """Nodes that no router hears."""
    replaced: bool
    """Whether a new instance of the gateway is placed in this step."""


@dataclass(frozen=True)
class _Move:
    phase: InstancePhase
    reason: str = ""
    drain_seconds: int = 0


def _places(
    gateway: str,
    instances: Sequence[ProxyInstance],
    aims: Mapping[str, Goal],
    wanted: Wanted,
    hosts: Mapping[str, Host],
) -> tuple[str, ...]:
    """The nodes that get a new instance."""
    if wanted.deleting:
        return ()
    kept = [i for i in instances if aims.get(i.node, "remove") != "remove"]
    active = [i for i in kept if aims[i.node] != "park"]
    need = wanted.replicas - len(kept)
    taken = {i.node for i in instances}
    free = [host.candidate for name, host in hosts.items() if name not in taken and host.takes_new]
    carriers = [i for i in active if may_stand_in(i) or is_coming(i)]
    carried = bool(carriers)
    leaving = [hosts[i.node] for i in kept if aims[i.node] == "park" and i.announced and not i.draining]
    # Who is to be parked, and is heard, waits for another one that routers hear; so place one, if it can be.
    missed = any(host.heard and not host.unheard_ok for host in leaving)
    if missed and any(not candidate.unheard for candidate in free):
        carried = any(hosts[i.node].heard for i in carriers)
    if len(kept) > len(active) and len(active) < wanted.replicas and not carried:
        need = max(need, 1)
    if need <= 0:
        return ()
    try:
        return tuple(place(gateway, free, need))
    except Exhausted:
        return ()


def _unplaced(wanted: Wanted, aims: Mapping[str, Goal], new: Sequence[str]) -> int:
    kept = sum(goal != "remove" for goal in aims.values())
    return 0 if wanted.deleting else max(0, wanted.replicas - kept - len(new))


def _moved(instance: ProxyInstance, view: _View) -> _Move:
    match instance.phase:
        case "Removed":
            return _Move("Removed", "waits for the node to say that nothing is left of it")
        case "Draining":
            return _draining(instance, view)
        case "Withdrawn":
            return _withdrawn(instance, view)
    if view.goal == "serve":
        return _towards_serving(instance)
    obstacle = _obstacle(instance, view)
    if obstacle:
        return replace(_towards_serving(instance), reason=obstacle)
    seconds = view.wanted.drain_seconds if instance.announced and not view.wanted.deleting else 0
    return _Move("Draining", f"drains to {view.goal}", seconds)


def _draining(instance: ProxyInstance, view: _View) -> _Move:
    if view.goal == "serve":
        return _towards_serving(instance)
    if instance.drained and not instance.announced:
        return _withdrawn(instance, view)
    seconds = 0 if view.wanted.deleting else instance.drain_seconds
    return _Move("Draining", f"drains to {view.goal}", seconds)


def _withdrawn(instance: ProxyInstance, view: _View) -> _Move:
    if view.goal == "remove" and instance.unit == "removed":
        if instance.listed and not view.wanted.deleting:
            return _Move("Withdrawn", _asked(instance))
        return _Move("Removed", "waits for the node to say that nothing is left of it")
    if view.goal == "serve":
        # A run may be at it: what it may restart must not serve meanwhile.
        return _Move("Withdrawn", "a run is under way") if view.host.running else _towards_serving(instance)
    parked = _asked(instance) if instance.listed and not view.wanted.deleting else "is parked"
    reason = parked if view.goal == "park" else f"waits for a run to {view.goal} it"
    return _Move("Withdrawn", reason)


def _asked(instance: ProxyInstance) -> str:
    """Why one that is withdrawn may not go yet, for which siblings may still have packets."""
    if not instance.awaits:
        return _ASKED
    nodes = ", ".join(instance.awaits)
    return (
        f"{WAITS_FOR_AGENTS}: {nodes}: the agent there has not said that nothing is passed on to it any more"
    )


def _towards_serving(instance: ProxyInstance) -> _Move:
    if instance.unit == "":
        return _Move("Planned", "waits for a run")
    if is_serving(instance):
        return _Move("Serving")
    waits = trouble(instance.error) if instance.error else "waits for Envoy to serve"
    return _Move("Prepared", _UNCONNECTED.get(instance.unconnected) or instance.hold or waits)


def _obstacle(instance: ProxyInstance, view: _View) -> str:
    """Why the instance cannot leave service now; empty if it can."""
    if view.wanted.deleting or not instance.announced:
        return ""
    others = view.others
    if any(o.phase == "Draining" or (o.phase == "Withdrawn" and o.goal == "restart") for o in others):
        return "WaitsForTurn: another instance of the gateway is on its way"
    if view.replaced or any(is_coming(o) and o.goal in {"serve", "restart"} for o in others):
        return "WaitsForReplacement: another instance of the gateway is to serve first"
    restart = view.goal == "restart"
    serving = {o.node for o in others if may_stand_in(o, for_long=not restart)}
    # Where no router hears the instance itself, nobody misses it.
    any_will_do = instance.node in view.unheard or view.host.unheard_ok
    enough = serving if any_will_do else serving - view.unheard
    if enough or (restart and not others):
        return ""
    return _why_alone(others, bool(serving))


def _why_alone(others: Sequence[ProxyInstance], any_serves: bool) -> str:
    """Why none of the others can take the place of an instance."""
    if any_serves:
        return "NoOtherHeard: no router has a BGP session with a node where another instance serves"
    if any(other.reaches_less for other in others):
        return "NoOtherConnected: the nodes of its other instances have no room for the tunnels that it has"
    return "NoOtherInstance: no other instance of the gateway serves, and no node has room for one"


def _stamped(before: ProxyInstance, move: _Move, goal: Goal, time: datetime) -> ProxyInstance:
    changed: dict[str, object] = {
        "phase": move.phase,
        "reason": move.reason,
        "goal": goal,
        "drain_seconds": move.drain_seconds,
    }
    if move.phase != before.phase:
        changed["since"] = time
        if move.phase == "Draining":
            # What was said of an earlier time does not count.
            changed["drained"] = False
    return before.model_copy(update=changed)


def _asks_for_run(before: ProxyInstance, after: ProxyInstance, wanted: Wanted, host: Host) -> bool:
    """Whether to queue a run for it: at once when it comes to need one, else if none is on its way."""
    if host.unreadable:
        return False
    turned = after.phase == "Withdrawn" and (before.phase, before.goal) != (after.phase, after.goal)
    return needs_run(after, wanted) and (turned or not (host.pending or host.running))
