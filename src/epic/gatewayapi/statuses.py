# SPDX-License-Identifier: Apache-2.0
"""What owners of gateways and routes are told of listeners and parents, in the Gateway API's words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten

from epic.gatewayapi.attachment import (
    UNSUPPORTED,
    Attachment,
    RouteHostnames,
    admit,
    is_gateway,
    unsupported,
)
from epic.gatewayapi.listeners import Fault, judge, specified
from epic.model.base import Condition
from epic.model.gatewayapi import ParentReference
from epic.model.resources import GWProxy, GWRoute

_ACCEPTED = "Accepted"
_LONGEST = 500


def accepted(proxy: GWProxy) -> Condition:
    """Whether the gateway's listeners can be served; with some that cannot it still is accepted.

    Reason ListenersNotValid, as for GatewayConditionAccepted of the Gateway API.
    """
    served, faults = judge(specified(proxy.spec))
    return Condition(
        type=_ACCEPTED,
        status="True" if served or not faults else "False",
        reason="ListenersNotValid" if faults else _ACCEPTED,
        message=shorten(" ".join(_told(fault) for fault in faults), 2 * _LONGEST, placeholder=" ..."),
        observed_generation=proxy.metadata.generation,
    )


def _told(fault: Fault) -> str:
    return f"Listener {fault.listener!r} is not served: {fault.message}"


def route_parents(
    route: GWRoute, find: Callable[[str], GWProxy | None]
) -> list[tuple[ParentReference, Condition]]:
    """The route's references to gateways, and whether they take it; `find` knows the gateways by name."""
    spec = route.spec.http or route.spec.tcp
    refs = [ref for ref in (spec.parent_refs if spec else ()) if is_gateway(ref)]
    fault, hostnames = unsupported(route), RouteHostnames(route)
    wanted = {name: specified(proxy.spec) for name in {r.name for r in refs} if (proxy := find(name))}
    served = {name: judge(listeners)[0] for name, listeners in wanted.items()}
    found: list[tuple[ParentReference, Condition]] = []
    for ref in refs:
        if ref.name not in wanted:
            verdict = Attachment(ref, reason="NoMatchingParent", message=f"There is no gateway {ref.name!r}.")
        elif fault is not None:
            verdict = Attachment(ref, reason=UNSUPPORTED, message=fault)
        else:
            verdict = admit(hostnames, ref, wanted[ref.name], served[ref.name])
        found.append((ref, _condition(route, verdict)))
    return found


def _condition(route: GWRoute, verdict: Attachment) -> Condition:
    return Condition(
        type=_ACCEPTED,
        status="True" if verdict.accepted else "False",
        reason=verdict.reason,
        # A route may have many parents, and each of them many listeners to name.
        message=shorten(verdict.message, _LONGEST, placeholder=" ..."),
        observed_generation=route.metadata.generation,
    )
