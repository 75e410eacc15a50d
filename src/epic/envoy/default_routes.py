# SPDX-License-Identifier: Apache-2.0
"""The route configuration of a port as the default template renders it, without the text between.

It is by far the largest of what a gateway is made of. To read it back from YAML takes ten times as long, a
good part of that in one step in which no other thread of the process runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epic.envoy.rendering import LARGEST, RenderError

# Characters that the template has around what is variable.
_OF_A_HOST = 50
_OF_A_ROUTE = 110
_OF_A_HEADER = 52
_OF_CLUSTERS = 114
_OF_A_CLUSTER = 38


def route_configuration(variables: Mapping[str, Any]) -> dict[str, object]:
    """What the template of routes renders of a port's variables. Raises RenderError if that is too long."""
    room = LARGEST
    hosts: list[dict[str, object]] = []
    for host in variables["VirtualHosts"]:
        routes: list[dict[str, object]] = []
        room -= _OF_A_HOST + len(host["Name"]) + sum(map(len, host["Domains"]))
        for route in host["Routes"]:
            room -= _length(route)
            if room < 0:
                break
            routes.append(_route(route))
        if room < 0:
            raise RenderError(f"it renders more than {LARGEST} characters")
        hosts.append({"name": host["Name"], "domains": host["Domains"], "routes": routes})
    return {
        "name": variables["PortName"],
        "ignore_port_in_host_matching": True,
        "validate_clusters": False,
        "virtual_hosts": hosts,
    }


def _length(route: Mapping[str, Any]) -> int:
    headers = sum(_OF_A_HEADER + len(h["Name"]) + len(h["Value"]) for h in route["Headers"])
    clusters = sum(_OF_A_CLUSTER + len(cluster["Name"]) for cluster in route["Clusters"])
    clusters += _OF_CLUSTERS if route["Clusters"] else 0
    return _OF_A_ROUTE + len(route["Name"]) + len(route["Path"]["Value"]) + headers + clusters


def _route(route: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {"name": route["Name"], "match": dict(_match(route))}
    if route["Clusters"]:
        shares = [{"name": cluster["Name"], "weight": cluster["Weight"]} for cluster in route["Clusters"]]
        found["route"] = {
            "timeout": "0s",
            "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
            "weighted_clusters": {"clusters": shares},
        }
    else:
        found["direct_response"] = {"status": 500}
    return found


def _match(route: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    kind, value = route["Path"]["Type"], route["Path"]["Value"]
    if kind == "Exact":
        yield "path", value
    elif value == "/":
        yield "prefix", value
    else:
        yield "path_separated_prefix", value
    yield "headers", [{"name": h["Name"], "string_match": {"exact": h["Value"]}} for h in route["Headers"]]
