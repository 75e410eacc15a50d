# SPDX-License-Identifier: Apache-2.0
"""The listeners of a gateway: which are served, and why the others are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from epic.gatewayapi.hostnames import ANY, is_hostname
from epic.model.gatewayapi import AllowedRoutes, Listener
from epic.model.resources import GWProxySpec
from epic.model.values.naming import COMPATIBILITY

Protocol = Literal["HTTP", "TCP"]

ROUTE_KINDS: dict[str, str] = {"HTTP": "HTTPRoute", "TCP": "TCPRoute"}
GROUP = "gateway.networking.k8s.io"

# Where there is no Gateway nobody has said that routes are to be of its namespace.
_FOR_ALL = AllowedRoutes(namespaces={"from": "All"})


@dataclass(frozen=True)
class Served:
    """A listener without faults."""

    name: str
    port: int
    protocol: Protocol
    hostname: str
    kinds: frozenset[str]


@dataclass(frozen=True)
class Fault:
    """Why a listener is not served."""

    listener: str
    reason: str
    message: str


def specified(spec: GWProxySpec) -> tuple[Listener, ...]:
    """The gateway's listeners; one made before the Gateway API serves HTTP on its first TCP port."""
    if spec.gateway is not None:
        return spec.gateway.listeners
    first = next((p.port for p in spec.public_ports if p.protocol == "TCP"), None)
    if first is None:
        return ()
    return (Listener(name=COMPATIBILITY, port=first, protocol="HTTP", allowed_routes=_FOR_ALL),)


def judge(listeners: Iterable[Listener]) -> tuple[tuple[Served, ...], tuple[Fault, ...]]:
    """Split listeners into those to serve and the faults of the others."""
    faults: list[Fault] = []
    sound: list[Served] = []
    for listener in listeners:
        fault = _fault(listener)
        if fault is None:
            sound.append(_served(listener))
        else:
            faults.append(fault)
    conflicts = _conflicts(sound)
    faults += conflicts.values()
    return tuple(s for s in sound if s.name not in conflicts), tuple(faults)


def _fault(listener: Listener) -> Fault | None:
    if listener.protocol not in ROUTE_KINDS:
        text = f"Protocol {listener.protocol!r} is not supported; supported are {', '.join(ROUTE_KINDS)}."
        return Fault(listener.name, "UnsupportedProtocol", text)
    if listener.hostname and not is_hostname(listener.hostname.lower()):
        text = f"{listener.hostname!r} is no hostname; one is a DNS name, perhaps with `*.` before it."
        return Fault(listener.name, "UnsupportedValue", text)
    return None


def _served(listener: Listener) -> Served:
    kind = ROUTE_KINDS[listener.protocol]
    wanted = listener.allowed_routes.kinds if listener.allowed_routes else None
    allowed = wanted is None or any(k.get("kind") == kind and k.get("group", GROUP) == GROUP for k in wanted)
    return Served(
        name=listener.name,
        port=listener.port,
        protocol=cast("Protocol", listener.protocol),
        hostname=(listener.hostname or ANY).lower() if listener.protocol == "HTTP" else ANY,
        kinds=frozenset({kind} if allowed else ()),
    )


def _conflicts(listeners: Iterable[Served]) -> dict[str, Fault]:
    """Faults by listener. There is no winner: all who share a port wrongly are in conflict."""
    by_port: dict[int, list[Served]] = defaultdict(list)
    for listener in listeners:
        by_port[listener.port].append(listener)
    faults: dict[str, Fault] = {}
    for port, sharing in by_port.items():
        mixed = len({listener.protocol for listener in sharing}) > 1
        for listener in sharing:
            same = [o.name for o in sharing if o.hostname == listener.hostname and o is not listener]
            if mixed:
                text = f"Port {port} is used with several protocols; one port serves one protocol."
                faults[listener.name] = Fault(listener.name, "ProtocolConflict", text)
            elif same:
                text = f"Port {port} with hostname {listener.hostname!r} is also that of {', '.join(same)}."
                faults[listener.name] = Fault(listener.name, "HostnameConflict", text)
    return faults
