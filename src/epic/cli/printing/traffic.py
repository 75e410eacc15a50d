# SPDX-License-Identifier: Apache-2.0
"""`epicctl status` of an account: what keeps requests from coming through. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from epic.cli.printing.fields import Row, dig, route_spec
from epic.cli.printing.health import Line

_SHOWN = 5


def traffic_lines(
    proxies: Sequence[Row],
    routes: Sequence[Row],
    slices: Sequence[Row],
    tunnels: Iterable[Row],
    silent: Iterable[Row] = (),
) -> tuple[Line, ...]:
    """What is wrong with an account's routes, with what is behind its gateways, and with its tunnels.

    Tunnels to nodes that are silent are not looked at: of these the silence is told.
    """
    known = {str(proxy["metadata"]["name"]) for proxy in proxies}
    away = {(node["cluster"], node["node"]) for node in silent}
    return (
        *_orphans(routes, known),
        *_empty(proxies, routes, slices),
        *_down(tunnel for tunnel in tunnels if (tunnel["cluster"], tunnel["node"]) not in away),
    )


def _orphans(routes: Iterable[Row], known: set[str]) -> Iterator[Line]:
    for route in routes:
        missing = sorted(_parents(route) - known)
        if missing or not _parents(route):
            names = f"there is no gateway {_some(missing)}" if missing else "it names no gateway"
            yield Line(f"route {_title(route)}", "no gateway", problem=names, theirs=True)


def _empty(proxies: Iterable[Row], routes: Sequence[Row], slices: Iterable[Row]) -> Iterator[Line]:
    """The gateways with routes that lead to Services of which no endpoint is ready."""
    titles: dict[str, str] = {}
    ready: set[str] = set()
    for piece in slices:
        service = dig(piece, "spec", "parentRef") or {}
        uid = str(service.get("uid"))
        titles[uid] = f"{service.get('namespace', '')}/{service['name']}" if service.get("name") else uid
        if any(_is_ready(endpoint) for endpoint in dig(piece, "spec", "endpoints") or ()):
            ready.add(uid)
    for proxy in proxies:
        name = str(proxy["metadata"]["name"])
        wanted = {uid for route in routes if name in _parents(route) for uid in _services(route)}
        if dead := sorted(wanted - ready):
            what = _some([titles.get(uid, uid) for uid in dead])
            every = "none of its requests is served: " if len(dead) == len(wanted) else ""
            yield Line(
                f"{proxy['metadata'].get('namespace', '')}/{dig(proxy, 'spec', 'display-name')}",
                "no endpoints",
                problem=f"{every}there is no ready endpoint of Service {what}",
                theirs=True,
            )


def _down(tunnels: Iterable[Row]) -> Iterator[Line]:
    states: dict[str, list[str]] = {}
    for tunnel in tunnels:
        states.setdefault(f"{tunnel['cluster']}/{tunnel['node']}", []).append(str(tunnel["state"]))
    for node, found in sorted(states.items()):
        if down := found.count("down"):
            problem = f"{down} of {len(found)} tunnels to it are down; see epicctl tunnels"
            yield Line(f"workload node {node}", "tunnels down", problem=problem, theirs=True)


def _is_ready(endpoint: dict[str, Any]) -> bool:
    return bool(endpoint.get("addresses")) and dig(endpoint, "conditions", "ready") is not False


def _parents(route: Row) -> set[str]:
    _, spec = route_spec(route)
    return {str(ref["name"]) for ref in spec.get("parentRefs", ()) if ref.get("kind", "Gateway") == "Gateway"}


def _services(route: Row) -> set[str]:
    _, spec = route_spec(route)
    refs = (ref for rule in spec.get("rules", ()) for ref in rule.get("backendRefs", ()))
    return {str(ref["name"]) for ref in refs if ref.get("weight", 1)}


def _title(route: Row) -> str:
    ref = dig(route, "spec", "clientRef") or {}
    return f"{ref.get('namespace', '')}/{ref['name']}" if ref.get("name") else str(route["metadata"]["name"])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
