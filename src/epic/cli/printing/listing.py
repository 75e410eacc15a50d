# SPDX-License-Identifier: Apache-2.0
"""`epicctl get`: the kinds, their aliases and the columns of their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from epic.cli.printing import phases
from epic.cli.printing.fields import Row, addresses, age, condition, dig, route_spec
from epic.client import PREFIX, EpicClient
from epic.errors import Denied, Invalid, NotFound
from epic.kinds import registry
from epic.kinds.kind import Kind
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.members import GWMember
from epic.model.resources import (
    Account,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    ServicePrefix,
    User,
)
from epic.model.runs import Run

Column = tuple[str, Callable[[Row], str]]


def _field(*keys: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = dig(row, *keys)
        return "-" if value in (None, "") else str(value)

    return text


def _ready(row: Row) -> str:
    instances = dig(row, "status", "instances") or []
    return f"{sum(bool(i.get('announced')) for i in instances)}/{len(instances)}"


def _second_chance(row: Row) -> str:
    found = condition(row, "SecondChance")
    return "yes" if found.get("status") == "True" else str(found.get("reason") or "-")


def _addresses(*keys: str) -> Callable[[Row], str]:
    return lambda row: ", ".join(addresses(dig(row, *keys) or {})) or "-"


def _dns(row: Row) -> str:
    # a record for each address, all of one name
    return ", ".join(dict.fromkeys(e["dnsName"] for e in dig(row, "spec", "endpoints") or ())) or "-"


def _nodes(row: Row) -> str:
    return ", ".join(i["node"] for i in dig(row, "status", "instances") or () if "node" in i) or "-"


def _ports(row: Row) -> str:
    return ", ".join(str(p["port"]) for p in dig(row, "spec", "public-ports") or ())


def _client(row: Row) -> str:
    ref = dig(row, "spec", "clientRef") or {}
    return f"{ref.get('clusterID', '')}:{ref.get('namespace', '')}/{ref.get('name', '')}"


def _members(row: Row) -> str:
    return ", ".join(m.get("clusterID") or "?" for m in dig(row, "status", "members") or ()) or "-"


def _conflict(row: Row) -> str:
    found = condition(row, "Conflicted")
    return str(found.get("reason")) if found.get("status") == "True" else "-"


def _service(row: Row) -> str:
    ref = dig(row, "spec", "parentRef") or {}
    return f"{ref.get('namespace', '')}/{ref.get('name', '')}"


def _parents(row: Row) -> str:
    _, spec = route_spec(row)
    return ", ".join(p["name"] for p in spec.get("parentRefs", ())) or "-"


def _endpoints(row: Row) -> str:
    endpoints = dig(row, "spec", "endpoints") or []
    ready = sum(dig(e, "conditions", "ready") is not False for e in endpoints)
    return f"{ready}/{len(endpoints)}"


def _age(row: Row) -> str:
    return age(dig(row, "metadata", "creationTimestamp"))


def _node_results(row: Row) -> str:
    results = dig(row, "status", "nodes") or {}
    wanted = dig(row, "spec", "nodes") or []
    return ", ".join(f"{n}: {dig(results, n, 'state') or 'pending'}" for n in wanted)


def _run_message(row: Row) -> str:
    results = dig(row, "status", "nodes") or {}
    messages = [f"{n}: {r['message']}" for n, r in results.items() if r.get("message")]
    return "; ".join(filter(None, [dig(row, "status", "message"), *messages])).replace("\n", " ")[:100] or "-"


_NAME: Column = ("NAME", _field("metadata", "name"))
_ACCOUNT: Column = ("ACCOUNT", _field("metadata", "namespace"))

_COLUMNS: dict[str, tuple[Column, ...]] = {
    Account.kind: (
        _NAME,
        ("GATEWAY LIMIT", _field("spec", "proxyLimit")),
        ("NODE LIMIT", _field("spec", "workloadNodeLimit")),
        ("TUNNEL LIMIT", _field("spec", "tunnelLimit")),
        ("ENDPOINT LIMIT", _field("spec", "endpointLimit")),
        ("ROUTE LIMIT", _field("spec", "routeLimit")),
        ("SLICE LIMIT", _field("spec", "sliceLimit")),
        ("BYTES LIMIT", _field("spec", "bytesLimit")),
        ("AGE", _age),
    ),
    User.kind: (_ACCOUNT, _NAME, ("AGE", _age)),
    ServicePrefix.kind: (
        _NAME,
        ("POOL", _field("spec", "public-pool", "pool")),
        ("SUBNET", _field("spec", "public-pool", "subnet")),
        ("ALT POOL", _field("spec", "alt-pool", "pool")),
        ("AGE", _age),
    ),
    LBServiceGroup.kind: (
        _ACCOUNT,
        _NAME,
        ("POOL", _field("spec", "service-prefix")),
        ("REPLICAS", _field("spec", "envoy-replica-count")),
        ("AGE", _age),
    ),
    GWProxy.kind: (
        _ACCOUNT,
        _NAME,
        ("GATEWAY", _field("spec", "display-name")),
        ("ADDRESS", _addresses("spec")),
        ("PORTS", _ports),
        ("MEMBERS", _members),
        ("DNS NAME", _dns),
        ("SERVING", _ready),
        ("SECOND CHANCE", _second_chance),
        ("NODES", _nodes),
        ("AGE", _age),
    ),
    GWMember.kind: (
        _ACCOUNT,
        _NAME,
        ("CLIENT OBJECT", _client),
        ("GATEWAY", _field("spec", "sharing-key")),
        ("PORTS", _ports),
        ("ADDRESS", _addresses("status", "gateway")),
        ("CONFLICT", _conflict),
        ("AGE", _age),
    ),
    GWRoute.kind: (
        _ACCOUNT,
        _NAME,
        ("CLIENT OBJECT", _client),
        ("TYPE", lambda row: route_spec(row)[0].upper() or "-"),
        ("HOSTNAMES", lambda row: ", ".join(route_spec(row)[1].get("hostnames") or ()) or "*"),
        ("GATEWAYS", _parents),
        ("AGE", _age),
    ),
    GWEndpointSlice.kind: (
        _ACCOUNT,
        _NAME,
        ("CLIENT OBJECT", _client),
        ("SERVICE", _service),
        ("TYPE", _field("spec", "addressType")),
        ("READY", _endpoints),
        ("NODES", lambda row: ", ".join(dig(row, "spec", "nodeAddresses") or ()) or "-"),
        ("AGE", _age),
    ),
    LoadBalancer.kind: (
        _ACCOUNT,
        _NAME,
        ("SERVICE", _field("spec", "display-name")),
        ("ADDRESS", _addresses("spec")),
        ("PORTS", _ports),
        ("DNS NAME", _dns),
        ("CLUSTERS", lambda row: ", ".join(dig(row, "spec", "upstream-clusters") or ()) or "-"),
        ("AGE", _age),
    ),
    RemoteEndpoint.kind: (
        _ACCOUNT,
        _NAME,
        ("SERVICE", _field("spec", "load-balancer")),
        ("CLUSTER", _field("spec", "cluster")),
        ("ADDRESS", _field("spec", "address")),
        ("NODE", _field("spec", "node-address")),
        ("PORT", _field("spec", "port", "port")),
        ("ACCEPTED", lambda row: str(condition(row, "Accepted").get("reason") or "-")),
        ("AGE", _age),
    ),
    Node.kind: (
        _NAME,
        ("PHASE", phases.phase),
        ("INSTANCES", lambda row: phases.counted(phases.instances(row))),
        ("CAPACITY", _field("spec", "capacity")),
        ("BGP", phases.sessions),
        ("CONDITIONS", phases.conditions),
        ("ADDRESS", _field("spec", "address")),
        ("LAST REPORT", lambda row: age(dig(row, "status", "last-report"))),
        ("AGENT", _field("status", "agent-version")),
    ),
    Run.kind: (
        _NAME,
        ("STATE", _field("status", "state")),
        ("PLAYBOOK", _field("spec", "playbook")),
        ("NODES", _node_results),
        ("STARTED", lambda row: age(dig(row, "status", "started"))),
        ("MESSAGE", _run_message),
    ),
}


@dataclass(frozen=True)
class Listed:
    """A kind that can be listed, and the columns of its table."""

    kind: Kind[Any]
    columns: tuple[Column, ...]


KINDS = tuple(Listed(registry.KINDS[name], columns) for name, columns in _COLUMNS.items())


def kind_of(name: str) -> Listed:
    """The kind of that name or alias."""
    kind = registry.KINDS.find(name)
    found = next((listed for listed in KINDS if listed.kind is kind), None)
    if found is None:
        raise Invalid(f"there is no kind {name!r}; use {', '.join(listed.kind.plural for listed in KINDS)}")
    return found


def accounts(client: EpicClient, account: str) -> list[str]:
    """The account given, else the user's own, else (of an administrator) all."""
    if account:
        return [account]
    own = dig(client.get(PREFIX), "link", "account")
    if isinstance(own, str):
        return [own.rpartition("/")[2]]
    return [item["metadata"]["name"] for item in client.list_all(f"{PREFIX}/accounts")]


def fetch(client: EpicClient, kind: Kind[Any], name: str, account: str) -> list[Row]:
    """The objects of a kind, or the one named."""
    places = accounts(client, account) if kind.of_account else [""]
    paths = [f"{PREFIX}/{kind.path(place)}" for place in places]
    if not name:
        return [row for path in paths for row in client.list_all(path)]
    bodies = [client.find(f"{path}/{name}") for path in paths]
    found = [body[kind.in_rest.key] for body in bodies if body is not None]
    if not found:
        where = (
            f" in {'accounts' if len(places) > 1 else 'account'} {', '.join(places)}" if any(places) else ""
        )
        raise NotFound(f"there is no {kind.singular} {name!r}{where}")
    return found


def workload_nodes(client: EpicClient, account: str) -> list[Row]:
    """Clients' nodes that tunnels lead to, of the account given or of all that the user may see."""
    if not account:
        try:
            return client.list_all(f"{PREFIX}/workload-nodes")
        except Denied:
            (account,) = accounts(client, "")
    return client.list_all(f"{PREFIX}/accounts/{account}/workload-nodes")


def cells(listed: Listed, rows: Iterable[Row]) -> list[list[str]]:
    """The table's lines."""
    return [[text(row) for _, text in listed.columns] for row in rows]
