# SPDX-License-Identifier: Apache-2.0
"""Pure: a node's registration as it should be against the one the API has."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to send: `put`, `delete` or nothing, with the specification before and after."""

    action: str
    before: Object
    after: Object

    @property
    def changed(self) -> bool:
        return self.action != "none"


def plan(state: str, wanted: Object, current: Object | None) -> Plan:
    """Fields that are not wanted are left as the API has them: an operator may have cordoned the node."""
    before = {} if current is None else dict(current.get("spec", {}))
    if state == "absent":
        return Plan("none" if current is None else "delete", before, {})
    after = {**before, **wanted}
    return Plan("none" if current is not None and after == before else "put", before, after)


def wanted_spec(values: Object) -> Object:
    """The specification that the module's options ask for, in the API's words."""
    names = {
        "address": "address",
        "management_address": "management-address",
        "underlay_mtu": "underlay-mtu",
        "capacity": "capacity",
        "schedulable": "schedulable",
    }
    spec = {field: values[option] for option, field in names.items() if values[option] is not None}
    if "address" in spec:
        spec["address"] = _as_the_api_writes_it(spec["address"])
    return spec


def _as_the_api_writes_it(address: str) -> str:
    """IPv6 addresses have many spellings; what is no address is left for the API to refuse."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address
