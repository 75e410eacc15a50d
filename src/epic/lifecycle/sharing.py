# SPDX-License-Identifier: Apache-2.0
"""Who shares a gateway, pure: whose listeners count, who follows, and what members are told."""

from __future__ import annotations

from collections.abc import Iterable

from epic.model.base import ClientRef, Condition, observed
from epic.model.gatewayapi import GatewaySpec
from epic.model.members import GWMember
from epic.model.resources import GWProxy, ServicePort

MOST_MEMBERS = 64
"""Of one gateway."""


def leads(member: GWMember, proxy: GWProxy) -> bool:
    """Whether the gateway's listeners are the member's: it stands for the same object of the client."""
    return is_same_client(member.spec.client_ref, proxy.spec.client_ref)


def is_same_client(one: ClientRef, other: ClientRef) -> bool:
    """Whether both are one object of a client; a gateway's has the gateway's name for UID."""
    return (one.cluster_id, one.namespace, one.name) == (other.cluster_id, other.namespace, other.name)


def in_order(members: Iterable[GWMember]) -> list[GWMember]:
    """The members, who came first before the others."""
    return sorted(members, key=lambda member: member.spec.joined)


def asks_alike(member: GWMember, proxy: GWProxy) -> bool:
    """Whether the member asks for what the gateway is; clusters may call its class as they like."""
    return _wish(member.spec.public_ports, member.spec.gateway) == _wish(
        proxy.spec.public_ports, proxy.spec.gateway
    )


def member_conditions(member: GWMember, proxy: GWProxy | None) -> tuple[Condition, ...]:
    """What a member is told: whether it shares the gateway, and whether that is as it asks.

    Without a gateway it cannot be read now.
    """
    if proxy is None:
        text = f"gateway {member.spec.sharing_key!r} cannot be read"
        return (observed(member, "Accepted", "Unknown", "Pending", text),)
    accepted = observed(member, "Accepted", "True", "Accepted")
    if asks_alike(member, proxy):
        return accepted, observed(member, "Conflicted", "False", "NoConflicts")
    first = client_text(proxy.spec.client_ref)
    text = (
        f"{first} asks for other listeners and was first, so those count; its routes are served by the "
        "gateway's listeners: ask for the same, or for another gateway"
    )
    return accepted, observed(member, "Conflicted", "True", "ListenersDiffer", text)


def client_text(ref: ClientRef) -> str:
    """A client's Gateway in words."""
    return f"Gateway {ref.namespace}/{ref.name} of cluster {ref.cluster_id}"


def _wish(
    ports: Iterable[ServicePort], gateway: GatewaySpec | None
) -> tuple[frozenset[ServicePort], GatewaySpec | None]:
    named = gateway.model_copy(update={"gateway_class_name": ""}) if gateway is not None else None
    return frozenset(ports), named
