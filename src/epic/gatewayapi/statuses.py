# SPDX-License-Identifier: Apache-2.0
"""What owners of gateways and routes are told of listeners and parents, in the Gateway API's words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from epic.gatewayapi.attachment import attach, is_gateway
from epic.gatewayapi.listeners import Fault, Served, judge, specified
from epic.model.base import Condition
from epic.model.gatewayapi import Listener, ParentReference
from epic.model.resources import GWProxy, GWRoute

_ACCEPTED = "Accepted"


def accepted(proxy: GWProxy) -> Condition:
    """Whether the gateway's listeners can be served; with some that cannot it still is accepted.

    Reason ListenersNotValid, as for GatewayConditionAccepted of the Gateway API.
    """
    served, faults = judge(specified(proxy.spec))
    return Condition(
        type=_ACCEPTED,
        status="True" if served or not faults else "False",
        reason="ListenersNotValid" if faults else _ACCEPTED,
        message=" ".join(_told(fault) for fault in faults),
        observed_generation=proxy.metadata.generation,
    )


def _told(fault: Fault) -> str:
    return f"Listener {fault.listener!r} is not served: {fault.message}"


@dataclass(frozen=True)
class _Judged:
    specified: tuple[Listener, ...]
    served: tuple[Served, ...]


class RouteParents:
    """Says how gateways take routes; each gateway is looked at once. `find` knows the gateways by name."""

    def __init__(self, find: Callable[[str], GWProxy | None]) -> None:
        self._find = find
        self._judged: dict[str, _Judged | None] = {}

    def of(self, route: GWRoute) -> list[tuple[ParentReference, Condition]]:
        """The route's references to gateways, and whether they take it."""
        spec = route.spec.http or route.spec.tcp
        refs = spec.parent_refs if spec else ()
        return [(ref, self._accepted(route, ref)) for ref in refs if is_gateway(ref)]

    def _accepted(self, route: GWRoute, ref: ParentReference) -> Condition:
        if ref.name not in self._judged:
            proxy = self._find(ref.name)
            wanted = specified(proxy.spec) if proxy else ()
            self._judged[ref.name] = _Judged(wanted, judge(wanted)[0]) if proxy else None
        gateway = self._judged[ref.name]
        status, reason, message = False, "NoMatchingParent", f"The account has no gateway {ref.name!r}."
        if gateway is not None:
            found = attach(route, ref, gateway.specified, gateway.served)
            status, reason, message = found.accepted, found.reason, found.message
        return Condition(
            type=_ACCEPTED,
            status="True" if status else "False",
            reason=reason,
            message=message,
            observed_generation=route.metadata.generation,
        )
