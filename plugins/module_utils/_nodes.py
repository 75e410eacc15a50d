# SPDX-License-Identifier: Apache-2.0
"""Pure: a node as it should be against the one the API has, and when it has become so."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

Object = dict[str, Any]

_REGISTRATION = {
    "address": "address",
    "management_address": "management-address",
    "underlay_mtu": "underlay-mtu",
    "capacity": "capacity",
}
_MAINTENANCE = {"schedulable": "schedulable", "drain": "drain"}
_OF_DRAIN = {"unheard_ok": "unheard-ok"}
_ASKED = {**_MAINTENANCE, **_OF_DRAIN}
_USUAL = {"schedulable": True, "drain": False, "unheard-ok": False}


class NodeError(ValueError):
    """Options that cannot be carried out on the node as it is."""


@dataclass(frozen=True)
class Plan:
    """What to send, with the specification before and after.

    `action` is `register`, `maintain`, `delete`, `forget` (delete by force) or `none`; `body` is the
    specification to register or the maintenance to ask for.
    """

    action: str
    before: Object
    after: Object
    body: Object

    @property
    def changed(self) -> bool:
        return self.action != "none"


def wanted_spec(options: Object) -> Object:
    """The specification that the module's options ask for, in the API's words; draining implies cordoning."""
    names = {**_REGISTRATION, **_MAINTENANCE}
    spec = {field: options[option] for option, field in names.items() if options[option] is not None}
    if "address" in spec:
        spec["address"] = _as_the_api_writes_it(spec["address"])
    if spec.get("drain"):
        if spec.get("schedulable"):
            raise NodeError("a node that is drained is not schedulable: drain and schedulable are both true")
        spec |= {"schedulable": False, "unheard-ok": options["unheard_ok"]}
    return spec


def plan(options: Object, current: Object | None) -> Plan:
    """Fields that are not wanted are left as the API has them: an operator may have cordoned the node."""
    before = {} if current is None else dict(current.get("spec", {}))
    if options["state"] == "absent":
        return Plan(_removal(current, options["force"]), before, {}, {})
    wanted = wanted_spec(options)
    if current is not None and _is_removed(current):
        raise NodeError(
            f"node {options['name']} is being removed; it can be registered again when it is gone"
        )
    if current is None and "address" not in wanted:
        raise NodeError(f"there is no node {options['name']}; to register it, give its address")
    after = {**before, **wanted}
    maintenance = {field: wanted[field] for field in _ASKED.values() if field in wanted}
    if current is None or _differ(before, after, _REGISTRATION):
        kept = {field: value for field, value in after.items() if field not in _ASKED.values()}
        return Plan("register", before, after, {**kept, **maintenance})
    if _differ({**_USUAL, **before}, {**_USUAL, **after}, _ASKED):
        return Plan("maintain", before, after, maintenance)
    return Plan("none", before, before, {})


def is_reached(options: Object, node: Object | None) -> bool:
    """Whether the node has become what was asked for: gone, drained, or back at work with all its instances.

    Of a node that is only registered nothing is waited for: its agent may be yet to come.
    """
    if options["state"] == "absent":
        return node is None
    if options["drain"]:
        return node is not None and condition(node, "Drained") == "True"
    if options["drain"] is False or options["schedulable"]:
        return node is not None and phase(node) == "Ready" and is_serving(node, options["unheard_ok"])
    return True


def is_serving(node: Object, unheard_ok: bool = False) -> bool:
    """Whether the node is at work with all its instances, and routers hear it; a cordoned one may be.

    With `unheard_ok` whatever routers hear.
    """
    asked = ("Ready",) if unheard_ok else ("Ready", "BGPEstablished")
    heard = "False" not in [condition(node, kind) for kind in asked]
    return heard and phase(node) in {"Ready", "Cordoned"} and instances(node).keys() <= {"Serving"}


def phase(node: Object) -> str:
    """The node's phase; Joining until EPIC says one."""
    return str(node.get("status", {}).get("phase") or "Joining")


def instances(node: Object) -> dict[str, int]:
    """How many of its instances are in which phase."""
    counts = node.get("status", {}).get("instances") or {}
    return {name: count for name, count in counts.items() if count}


def condition(node: Object, kind: str) -> str:
    """The status of the node's condition of a type; empty when it has none."""
    conditions = node.get("status", {}).get("conditions") or ()
    return next((str(c.get("status")) for c in conditions if c.get("type") == kind), "")


def describe(node: Object | None) -> str:
    """How a node is, in words, for the message of a wait that was too long."""
    if node is None:
        return "there is no such node"
    counts = ", ".join(f"{count} {name}" for name, count in instances(node).items()) or "no instances"
    conditions = node.get("status", {}).get("conditions") or ()
    words = [f"{c.get('type')} is {c.get('status')}: {c['message']}" for c in conditions if c.get("message")]
    return "; ".join([f"{phase(node)}, {counts}", *words])


def _removal(current: Object | None, force: bool) -> str:
    if current is None:
        return "none"
    if force:
        return "forget"
    return "none" if _is_removed(current) else "delete"


def _is_removed(node: Object) -> bool:
    return bool(node.get("metadata", {}).get("deletionTimestamp"))


def _differ(one: Object, other: Object, names: dict[str, str]) -> bool:
    return any(one.get(field) != other.get(field) for field in names.values())


def _as_the_api_writes_it(address: str) -> str:
    """IPv6 addresses have many spellings; what is no address is left for the API to refuse."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address
