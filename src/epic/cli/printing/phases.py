# SPDX-License-Identifier: Apache-2.0
"""How a node is, in words: its phase, its instances' phases, the conditions that say why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from epic.cli.printing.fields import Row, condition, dig

INSTANCE_PHASES = ("Planned", "Prepared", "Serving", "Draining", "Withdrawn", "Removed")
_LEAVING = frozenset({"Draining", "Withdrawn", "Removed"})


def phase(row: Row) -> str:
    """The phase that EPIC gives the node; Joining until it says one."""
    return str(dig(row, "status", "phase") or "Joining")


def instances(row: Row) -> dict[str, int]:
    """How many of the node's instances are in which phase, in the order of an instance's life."""
    counts = dig(row, "status", "instances") or {}
    known = [name for name in INSTANCE_PHASES if counts.get(name)]
    return {name: counts[name] for name in (*known, *(n for n in counts if n not in INSTANCE_PHASES))}


def counted(counts: Mapping[str, int]) -> str:
    """The counts in words."""
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no instances"


def is_true(row: Row, kind: str) -> bool:
    """Whether the object has the condition, and it is true."""
    return condition(row, kind).get("status") == "True"


def reason(row: Row, kind: str) -> str:
    """What a condition says: its message, or else its reason."""
    found = condition(row, kind)
    return str(found.get("message") or found.get("reason") or "")


def worries(row: Row) -> list[str]:
    """What is not as it should be at a node, as its conditions say."""
    found = [
        f"not {kind}: {reason(row, kind)}"
        for kind in ("Ready", "BGPEstablished", "Healthy")
        if condition(row, kind).get("status") == "False"
    ]
    if is_true(row, "DropHeld"):
        found.append(f"holds a drop: {reason(row, 'DropHeld')}")
    return found


def waits_for(row: Row) -> str:
    """What a node that drains still waits for; nothing when it does not drain."""
    drains = phase(row) in {"Draining", "Removing"} and condition(row, "Drained").get("status") == "False"
    return reason(row, "Drained") if drains else ""


def conditions(row: Row) -> str:
    """The node's conditions that are not at rest: each as its type, or `not` its type."""
    at_rest = {
        ("Ready", "True"),
        ("Healthy", "True"),
        ("Drained", "False"),
        ("DropHeld", "False"),
        ("SecondChance", "True"),
        ("BGPEstablished", "True"),
        # Whether routers hear a node whose BIRD is none of ours is never known.
        ("BGPEstablished", "Unknown"),
    }
    found = [(str(c.get("type")), str(c.get("status"))) for c in dig(row, "status", "conditions") or ()]
    words = {"True": "", "False": "not "}
    return ", ".join(words.get(s, "perhaps ") + t for t, s in found if (t, s) not in at_rest) or "-"


def sessions(row: Row) -> str:
    """How many of the node's BGP sessions are established; `-` where that is not known."""
    bgp = dig(row, "status", "bgp")
    return f"{bgp.get('established', 0)}/{bgp.get('configured', 0)}" if bgp else "-"


def leaving(phases: Iterable[str]) -> bool:
    """Whether instances of these phases are all on their way out."""
    return set(phases) <= _LEAVING
