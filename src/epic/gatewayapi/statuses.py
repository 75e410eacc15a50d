# SPDX-License-Identifier: Apache-2.0
"""What owners of gateways and routes are told of listeners and parents, in the Gateway API's words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from textwrap import shorten
from typing import NamedTuple

from epic.gatewayapi.attached.routes import no_room
from epic.gatewayapi.attachment import (
    UNSUPPORTED,
    Attachment,
    RouteHostnames,
    admit,
    is_gateway,
    unsupported,
)
from epic.gatewayapi.backends import backend_refs, is_service
from epic.gatewayapi.listeners import GROUP, Fault, Served, judge, specified
from epic.gatewayapi.namespaces import AllowedNamespaces
from epic.gatewayapi.target_ports import ServicePorts, TargetPorts
from epic.model.base import Condition
from epic.model.gatewayapi import BackendRef, GatewaySpec, Listener, ParentReference
from epic.model.members import GWMember
from epic.model.resources import GWProxy, GWRoute

ROUTES_LEFT_OUT = "RoutesLeftOut"

_ACCEPTED = "Accepted"
_RESOLVED = "ResolvedRefs"
_BACKEND_NOT_FOUND = "BackendNotFound"
_NO_GATEWAY = "A parent of kind {kind!r} (group {group!r}) is not served, only Gateways of the Gateway API."
_LEFT_OUT = re.compile(r"(\d+) routes? (?:is|are) left out")
_LONGEST = 500


class _Verdict(NamedTuple):
    """Whether what a condition says holds, with the Gateway API's word and ours for that."""

    holds: bool
    reason: str
    message: str


class _Gateway(NamedTuple):
    """What of a gateway decides on a route: its listeners, those served, and why some are closed to it."""

    proxy: GWProxy
    members: Sequence[GWMember]
    wanted: Sequence[Listener]
    served: Sequence[Served]
    closed: Mapping[str, str]

    @classmethod
    def of(cls, proxy: GWProxy, members: Sequence[GWMember], route: GWRoute) -> _Gateway:
        wanted = specified(proxy.spec)
        closed = AllowedNamespaces(proxy, wanted, members).closed_to(route)
        return cls(proxy, members, wanted, judge(wanted)[0], closed)


def accepted(proxy: GWProxy, left_out: int = 0) -> Condition:
    """Whether the gateway's listeners can be served; with some that cannot it still is accepted.

    So it is with fields that are not served, but for parameters, of which nobody knows what they ask for, and
    with routes that are left out. The reasons are those of GatewayConditionAccepted of the Gateway API, and
    UnsupportedValue and RoutesLeftOut.
    """
    served, faults = judge(specified(proxy.spec))
    texts = [*_unserved_fields(proxy.spec.gateway), *map(_told, faults)]
    has_parameters = _has_parameters(proxy.spec.gateway)
    reason = "ListenersNotValid" if faults else UNSUPPORTED if texts else _ACCEPTED
    if left_out:
        texts.insert(0, _told_left_out(left_out))
        reason = ROUTES_LEFT_OUT if reason == _ACCEPTED else reason
    return Condition(
        type=_ACCEPTED,
        status="True" if (served or not faults) and not has_parameters else "False",
        reason="InvalidParameters" if has_parameters else reason,
        message=shorten(" ".join(texts), 2 * _LONGEST, placeholder=" ..."),
        observed_generation=proxy.metadata.generation,
    )


def _unserved_fields(gateway: GatewaySpec | None) -> Iterator[str]:
    if gateway is not None:
        given = {
            "infrastructure": gateway.infrastructure,
            "allowedListeners": gateway.allowed_listeners,
            "tls": gateway.tls,
            "defaultScope": gateway.default_scope,
        }
        yield from (f"Field spec.{name} is not served." for name, value in given.items() if value)


def _told_left_out(number: int) -> str:
    routes = "1 route is left out, for" if number == 1 else f"{number} routes are left out, for"
    return f"{routes} the gateway has no room beside older ones; the condition Accepted of each says of what."


def told_left_out(message: str) -> int:
    """How many routes a gateway leaves out, by the message of its condition Accepted, for whatever reason."""
    found = _LEFT_OUT.match(message)
    return int(found[1]) if found else 0


def _has_parameters(gateway: GatewaySpec | None) -> bool:
    return gateway is not None and bool((gateway.infrastructure or {}).get("parametersRef"))


def _told(fault: Fault) -> str:
    return f"Listener {fault.listener!r} is not served: {fault.message}"


def route_parents(
    route: GWRoute,
    find: Callable[[str], GWProxy | None],
    members_of: Callable[[GWProxy], Sequence[GWMember]],
    left_out: Callable[[GWProxy, Sequence[GWMember]], Mapping[str, str]],
) -> list[tuple[ParentReference, Condition]]:
    """The route's references, and whether gateways take it.

    `find` knows the gateways by name, `members_of` who shares one, and `left_out` the routes that one with
    these members has no room for, and why.
    """
    refs = route.spec.parent_refs
    fault, hostnames = unsupported(route), RouteHostnames(route)
    names = {ref.name for ref in refs if is_gateway(ref)}
    gateways = {name: _Gateway.of(proxy, members_of(proxy), route) for name in names if (proxy := find(name))}
    without_room = cache(lambda name: left_out(gateways[name].proxy, gateways[name].members))
    found: list[tuple[ParentReference, Condition]] = []
    for ref in refs:
        gateway = gateways.get(ref.name)
        if not is_gateway(ref):
            group = GROUP if ref.group is None else ref.group
            text = _NO_GATEWAY.format(kind=ref.kind or "Gateway", group=group)
            verdict = Attachment(ref, reason=UNSUPPORTED, message=text)
        elif gateway is None:
            verdict = Attachment(ref, reason="NoMatchingParent", message=f"There is no gateway {ref.name!r}.")
        elif fault is not None:
            verdict = Attachment(ref, reason=UNSUPPORTED, message=fault)
        else:
            verdict = admit(hostnames, ref, gateway.wanted, gateway.served, gateway.closed)
            if verdict.accepted and (why := without_room(ref.name).get(route.name)):
                verdict = no_room(ref, why)
        judged = _Verdict(verdict.accepted, verdict.reason, verdict.message)
        found.append((ref, _condition(route, _ACCEPTED, judged)))
    return found


def resolved_refs(route: GWRoute, ports_of: Callable[[str], Collection[TargetPorts] | None]) -> Condition:
    """Whether there is all that the route's rules refer to; what is not there answers 500 for its share.

    `ports_of` knows the ports of the slices of a Service by its UID, None where it has no slices.
    """
    reason, faults = _RESOLVED, list[str]()
    ports = cache(lambda service: ServicePorts(ports_of(service) or ()))
    for ref in dict.fromkeys(ref.model_copy(update={"weight": 1}) for ref in backend_refs(route)):
        found = ports_of(ref.name) if is_service(ref) else None
        if not is_service(ref):
            fault = "InvalidKind", f"Backend {ref.kind} {ref.name!r} is no Service of the core group."
        elif found is None:
            fault = _BACKEND_NOT_FOUND, f"There is no EndpointSlice of Service {ref.name!r}."
        elif ports(ref.name).lacks(ref.port):
            fault = _BACKEND_NOT_FOUND, _no_port(ref)
        else:
            continue
        reason = reason if faults else fault[0]
        faults.append(fault[1])
    return _condition(route, _RESOLVED, _Verdict(not faults, reason, " ".join(faults)))


def _no_port(ref: BackendRef) -> str:
    if ref.port is None:
        return f"Service {ref.name!r} has several ports; say which one."
    return f"Service {ref.name!r} has no port {ref.port}."


def _condition(route: GWRoute, kind: str, verdict: _Verdict) -> Condition:
    return Condition(
        type=kind,
        status="True" if verdict.holds else "False",
        reason=verdict.reason,
        # A route may have many parents, and each of them many listeners to name.
        message=shorten(verdict.message, _LONGEST, placeholder=" ..."),
        observed_generation=route.metadata.generation,
    )
