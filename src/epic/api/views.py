# SPDX-License-Identifier: Apache-2.0
"""What of gateways and tunnels is shown to whom: operators see all, tenants no node and no agent's words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from epic.api.context import Context, Principal
from epic.api.replies import shown
from epic.gatewayapi.statuses import resolved_refs, route_parents
from epic.gatewayapi.target_ports import TargetPorts
from epic.lifecycle.sharing import asks_alike, in_order, leads, member_conditions
from epic.model.base import Condition
from epic.model.instances import WAITS_FOR_AGENTS, reason_of, trouble
from epic.model.members import GWMember
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute
from epic.model.values.naming import CONTROLLER_NAME


def show_gateway(ctx: Context, proxy: GWProxy, principal: Principal) -> dict[str, Any]:
    """A gateway with its members.

    Of an instance's error tenants get the reason and a text that is the same each time.
    """
    wire = shown(proxy)
    if not principal.admin:
        instances = wire["status"]["instances"]
        wire["status"]["instances"] = [_show_instance(instance) for instance in instances]
    members = in_order(_members(ctx, proxy))
    if members:
        wire["status"]["members"] = [
            {
                **member.spec.client_ref.wire(),
                "leads": leads(member, proxy),
                "conflicted": not asks_alike(member, proxy),
            }
            for member in members
        ]
    return wire


def show_member(ctx: Context, member: GWMember) -> dict[str, Any]:
    """A member with what it is told, and its gateway's addresses, names and conditions."""
    proxy = ctx.store.find_readable(GWProxy, member.account, member.spec.sharing_key)
    status: dict[str, Any] = {"conditions": [_judged_now(c) for c in member_conditions(member, proxy)]}
    if proxy is not None:
        status["gateway"] = {
            "public-address": str(proxy.spec.public_address or ""),
            "alt-address": str(proxy.spec.alt_address or ""),
            "endpoints": [endpoint.wire() for endpoint in proxy.spec.endpoints],
            "conditions": [condition.wire() for condition in proxy.status.conditions],
        }
    return {**shown(member), "status": status}


def _members(ctx: Context, proxy: GWProxy) -> Sequence[GWMember]:
    return ctx.store.by(GWMember, "gateway", (proxy.account, proxy.name))


def _show_instance(instance: dict[str, Any]) -> dict[str, Any]:
    """An instance as its owner sees it: no name of a node, no agent's words."""
    seen = {name: value for name, value in instance.items() if name not in {"node", "awaits"}}
    if (text := instance["reason"]).startswith(f"{WAITS_FOR_AGENTS}:"):
        seen["reason"] = reason_of(text)
    if text := instance["error"]:
        seen["error"] = f"{reason_of(text)}: {trouble(text)}"
    return seen


def show_route(ctx: Context, route: GWRoute) -> dict[str, Any]:
    """A route with what the account's gateways make of it, as RouteStatus of the Gateway API has it.

    It is found out when it is asked for; lists do without, for there may be thousands.
    """
    judged = route_parents(
        route,
        lambda name: ctx.store.find_readable(GWProxy, route.account, name),
        partial(_members, ctx),
        partial(ctx.left_out.of, ctx.store),
    )
    resolved = resolved_refs(route, cache(partial(_target_ports, ctx, route.account)))
    parents = [
        {
            "parentRef": ref.wire(),
            "controllerName": CONTROLLER_NAME,
            "conditions": [_judged_now(condition), _judged_now(resolved)],
        }
        for ref, condition in judged
    ]
    return {**shown(route), "status": {"parents": parents}}


def _target_ports(ctx: Context, account: str, uid: str) -> list[TargetPorts] | None:
    slices = ctx.store.by(GWEndpointSlice, "service", (account, uid))
    return [TargetPorts(piece.spec.ports) for piece in slices] or None


def _judged_now(condition: Condition) -> dict[str, Any]:
    """A condition that is not stored: nobody knows since when it is so."""
    wire: dict[str, Any] = condition.wire()
    return {name: value for name, value in wire.items() if name != "lastTransitionTime"}


def show_second_chance(chance: dict[str, Any], principal: Principal) -> dict[str, Any]:
    """What became of a gateway's packets on a node; to tenants the node has no name."""
    return {name: value for name, value in chance.items() if principal.admin or name != "epic-node"}


def show_tunnel(status: dict[str, Any], principal: Principal) -> dict[str, Any]:
    """How a tunnel is; to tenants its end on the platform's side has no name."""
    if principal.admin:
        return status
    epic_node = status["epic-node"]
    found = {name: value for name, value in status.items() if name != "epic-node"}
    if waits := status["key"].get("waits-for"):
        ends = ["EPIC" if end == epic_node else end for end in waits]
        found["key"] = {**status["key"], "waits-for": ends}
    return found
