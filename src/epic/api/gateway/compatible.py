# SPDX-License-Identifier: Apache-2.0
"""What is made of a gateway whose client leaves out its class, or knows of no Gateway API; pure."""

from __future__ import annotations

from typing import Any

from epic.model.gatewayapi import GatewaySpec, Listener
from epic.model.resources import ServicePort
from epic.model.values.naming import COMPATIBILITY

_CLASS_NAMES = ("gatewayClassName", "gateway_class_name")


def with_class(gateway: Any) -> Any:
    """The Gateway of a request with the default class, if it names none; None if it has nothing else either.

    Clients in Go send a Gateway that they do not have as one without class and listeners.
    """
    if not isinstance(gateway, dict) or any(gateway.get(name) for name in _CLASS_NAMES):
        return gateway
    others = {name: value for name, value in gateway.items() if name not in _CLASS_NAMES}
    return {**others, "gatewayClassName": COMPATIBILITY} if others else None


def gateway_of_ports(ports: tuple[ServicePort, ...]) -> GatewaySpec:
    """HTTP on the first port: that of a client that gives ports only."""
    listeners = tuple(Listener(name=COMPATIBILITY, port=port.port, protocol="HTTP") for port in ports[:1])
    return GatewaySpec(gateway_class_name=COMPATIBILITY, listeners=listeners)
