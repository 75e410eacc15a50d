# SPDX-License-Identifier: Apache-2.0
"""The life of an EPIC node, pure: its phase, its conditions, and when it may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from epic.heartbeats import Heard
from epic.lifecycle.digest import Placed, node_digest
from epic.lifecycle.sequencer import OBSTACLES
from epic.model.base import Condition, with_condition
from epic.model.instances import ProxyInstance
from epic.model.nodes import NodePhase, NodeStatus
from epic.model.resources import Node

SILENT_AFTER = timedelta(seconds=40)
"""Reports come every few seconds."""
SILENT = "Silent"
_NAMED = 5
_MAY_HAVE_MORE = "a gateway that cannot be read may have an instance here; replace, restore or discard it"


def settled(
    node: Node, placed: Sequence[Placed], time: datetime, heard: Heard, *, may_have_more: bool = False
) -> Node:
    """The node as it is now; `placed` are all instances that it has not let go of.

    It `may_have_more`, of gateways that cannot be read.
    """
    status = node.status
    ready = _ready(node, heard)
    phase = _phase(node)
    update: dict[str, object] = {
        "emptied": status.emptied or (node.deleting and not placed and not may_have_more),
        "returning": status.returning and status.applied_digest != node_digest(status, placed),
    }
    if phase != status.phase or status.since is None:
        update |= {"phase": phase, "since": time}
    if ready.reason == SILENT and not is_silent(node) and heard.last is not None:
        update["last_report"] = heard.last
    conditions = status.conditions
    for condition in (
        ready,
        _drained(node, placed, may_have_more=may_have_more),
        _drop_held(status),
        _healthy(status),
        _second_chance(status),
        _bgp_established(status),
    ):
        conditions = _with(conditions, condition)
    status = status.model_copy(update={**update, "conditions": conditions})
    return node.model_copy(update={"status": status})


def is_gone(node: Node, placed: Sequence[Placed]) -> bool:
    """Whether nothing of EPIC's is on the node any more, or nobody waits for it to say so."""
    if not node.deleting or placed:
        return False
    status = node.status
    if status.lost or status.last_report is None:
        return True
    return status.emptied and status.applied_digest == node_digest(status, placed)


def is_planned(node: Node) -> bool:
    """Whether a node that is gone has let go of everything by itself, and has said so."""
    return node.status.emptied and not node.status.lost


def phase_counts(placed: Sequence[Placed]) -> dict[str, int]:
    """How many instances of each phase there are."""
    return dict(sorted(Counter(instance.phase for _, instance in placed).items()))


def _phase(node: Node) -> NodePhase:
    if node.deleting:
        return "Removing"
    if node.status.last_report is None:
        return "Joining"
    if node.spec.drain:
        return "Draining"
    return "Ready" if node.spec.schedulable else "Cordoned"


def is_silent(node: Node) -> bool:
    """Whether it is noted that the node does not report."""
    return any(c.type == "Ready" and c.reason == SILENT for c in node.status.conditions)


def _ready(node: Node, heard: Heard) -> Condition:
    if node.status.last_report is None:
        return _condition("Ready", "Unknown", "NeverReported", "its agent has not reported yet")
    # When nothing was heard of anybody yet, everybody is as before: it is the control plane that was away.
    if heard.silence > SILENT_AFTER or (heard.last is None and is_silent(node)):
        return _condition("Ready", "False", SILENT, "its agent does not report")
    return _condition("Ready", "True", "Reporting")


def _drained(node: Node, placed: Sequence[Placed], *, may_have_more: bool) -> Condition:
    if not (node.spec.drain or node.deleting):
        return _condition("Drained", "False", "NotAsked")
    serving = [p for p in placed if p.instance.phase not in {"Withdrawn", "Removed"} or _is_asked(p.instance)]
    if not serving and may_have_more:
        return _condition("Drained", "False", "GatewayUnreadable", _MAY_HAVE_MORE)
    if not serving:
        return _condition("Drained", "True", "NoInstanceServes")
    named = [f"{gateway}: {i.reason or i.phase}" for gateway, i in sorted(serving, key=lambda p: p.gateway)]
    more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    waits = (why for why in OBSTACLES if any(i.reason.startswith(why) for _, i in serving))
    reason = next(waits, "InstancesServe")
    return _condition("Drained", "False", reason, "; ".join(named[:_NAMED]) + more)


def _is_asked(instance: ProxyInstance) -> bool:
    """Whether siblings may still pass packets on to it: on a node that is switched off they are lost."""
    return instance.phase == "Withdrawn" and instance.listed


def _drop_held(status: NodeStatus) -> Condition:
    if not status.held_gateways:
        return _condition("DropHeld", "False", "NothingHeld")
    named = ", ".join(status.held_gateways[:_NAMED])
    return _condition(
        "DropHeld",
        "True",
        "TooManyAtOnce",
        f"the node goes on with {len(status.held_gateways)} gateways that it was told to drop ({named}) "
        "until the drop is accepted",
    )


def _healthy(status: NodeStatus) -> Condition:
    if status.problems:
        return _condition("Healthy", "False", "ProblemsReported", "; ".join(status.problems[:_NAMED]))
    return _condition("Healthy", "True", "NothingReported")


def _second_chance(status: NodeStatus) -> Condition:
    if status.second_chance:
        return _condition("SecondChance", "True", "PassesOn")
    text = status.second_chance_refusal or "its agent does not pass packets on"
    return _condition("SecondChance", "False", "DoesNotPassOn", text)


def _bgp_established(status: NodeStatus) -> Condition:
    kind, bgp = "BGPEstablished", status.bgp
    if bgp is None:
        return _condition(kind, "Unknown", "NotObserved", "its agent does not look at a BIRD")
    if bgp.failure:
        return _condition(kind, "False", "BIRDNotAnswering", bgp.failure)
    if not bgp.configured:
        return _condition(kind, "Unknown", "NoSessionConfigured", "its BIRD has no BGP session")
    many = f"{bgp.established} of {bgp.configured} BGP sessions are established"
    if not bgp.established:
        return _condition(kind, "False", "NoSessionEstablished", f"no router hears the node: {many}")
    if bgp.established < bgp.configured:
        named = ", ".join(session.name for session in bgp.down[:_NAMED])
        return _condition(kind, "True", "SomeSessionsEstablished", f"{many}; down: {named}")
    return _condition(kind, "True", "AllSessionsEstablished", many)


def _condition(
    kind: str, status: Literal["True", "False", "Unknown"], reason: str, message: str = ""
) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)


def _with(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    old = next((c for c in conditions if c.type == new.type), None)
    same = old is not None and (old.status, old.reason, old.message) == (new.status, new.reason, new.message)
    return conditions if same else with_condition(conditions, new)
