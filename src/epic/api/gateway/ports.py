# SPDX-License-Identifier: Apache-2.0
"""A gateway's listeners and public ports, pure: what is accepted, and one from the other."""

from __future__ import annotations

from epic.api.bodies import ProxySpecInput
from epic.api.gateway.compatible import gateway_of_ports
from epic.errors import Invalid
from epic.model.gatewayapi import GatewaySpec, Listener
from epic.model.resources import ServicePort

_TRANSPORT = {"HTTP": "TCP", "HTTPS": "TCP", "TLS": "TCP", "TCP": "TCP", "UDP": "UDP"}


def ports_and_gateway(
    spec: ProxySpecInput, what: str = "proxy"
) -> tuple[tuple[ServicePort, ...], GatewaySpec]:
    """The gateway's public ports, each once, and its Gateway spec; raises Invalid when they do not fit.

    `what` is the object's key in the request.
    """
    gateway = spec.gateway or gateway_of_ports(spec.public_ports)
    wanted = [
        _port_of(f"{what}.spec.gateway.listeners.{i}", listener)
        for i, listener in enumerate(gateway.listeners)
    ]
    ports = _unique(spec.public_ports or tuple(wanted))
    if not ports:
        raise Invalid(f"{what}.spec.gateway.listeners: a gateway needs at least one listener")
    open_ports = {(port.protocol, port.port) for port in ports}
    for i, port in enumerate(wanted):
        if (port.protocol, port.port) not in open_ports:
            raise Invalid(
                f"{what}.spec.gateway.listeners.{i}: its port {port.protocol} {port.port} is not among "
                f"{what}.spec.public-ports ({_text(ports)}); add it there, or leave public-ports out"
            )
    return ports, gateway


def _port_of(where: str, listener: Listener) -> ServicePort:
    transport = _TRANSPORT.get(listener.protocol)
    if transport is None:
        raise Invalid(
            f"{where}.protocol: {listener.protocol!r} is not supported; use one of {', '.join(_TRANSPORT)}"
        )
    return ServicePort.model_validate({"name": listener.name, "protocol": transport, "port": listener.port})


def _unique(ports: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
    # Several listeners may share a port.
    first: dict[tuple[str, int], ServicePort] = {}
    for port in ports:
        first.setdefault((port.protocol, port.port), port)
    return tuple(first.values())


def _text(ports: tuple[ServicePort, ...]) -> str:
    return ", ".join(f"{port.protocol} {port.port}" for port in ports)
