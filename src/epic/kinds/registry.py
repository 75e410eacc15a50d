# SPDX-License-Identifier: Apache-2.0
"""All kinds that there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from epic.errors import Invalid
from epic.kinds import checks, indexes
from epic.kinds.kind import ACCOUNT_NAME, ADDRESS_NAME, NUMBER_NAME, Kind, Rest, T
from epic.model.backlog import TunnelBacklog
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.base import Resource
from epic.model.members import GWMember
from epic.model.nodes import NodeRevocation, Quarantine
from epic.model.releases import ReleasedAddress
from epic.model.resources import (
    Account,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    ServicePrefix,
    Tunnel,
    User,
)
from epic.model.runs import Run
from epic.model.siblings import Siblings

ACCOUNT = Kind(
    Account,
    resource="accounts",
    plural="accounts",
    singular="account",
    scope="cluster",
    writer="platform",
    rest=Rest("accounts", "account"),
    named=ACCOUNT_NAME,
)
USER = Kind(
    User,
    resource="users",
    plural="users",
    singular="user",
    scope="account",
    writer="platform",
    rest=Rest("users", "user"),
)
SERVICE_PREFIX = Kind(
    ServicePrefix,
    resource="serviceprefixes",
    plural="service-prefixes",
    singular="service-prefix",
    scope="cluster",
    writer="platform",
    short_names=("sp", "sps"),
    aliases=("prefixes", "pools"),
    rest=Rest("service-prefixes", "service-prefix"),
    indexes={"subnet": indexes.prefix_pools},
)
LB_SERVICE_GROUP = Kind(
    LBServiceGroup,
    resource="lbservicegroups",
    plural="groups",
    singular="group",
    scope="account",
    writer="platform",
    short_names=("lbsg", "lbsgs"),
    aliases=("templates", "template"),
    rest=Rest("groups", "group"),
    indexes={"service-prefix": indexes.group_prefix},
)
GW_PROXY = Kind(
    GWProxy,
    resource="gwproxies",
    plural="gateways",
    singular="gateway",
    scope="account",
    writer="account",
    short_names=("gwp", "gwps"),
    aliases=("gw",),
    rest=Rest("proxies", "proxy"),
    indexes={
        "group": indexes.proxy_group,
        "node": indexes.proxy_nodes,
        "address": indexes.proxy_addresses,
        "dns-name": indexes.proxy_dns_names,
    },
    filled_in=frozenset(
        {"group", "service_prefix", "public_address", "alt_address", "endpoints", "gue_tunnel_endpoints"}
    ),
    checks=(checks.check_listeners, checks.check_unserved),
)
GW_MEMBER = Kind(
    GWMember,
    resource="gwmembers",
    plural="members",
    singular="member",
    scope="account",
    writer="account",
    short_names=("gwm", "gwms"),
    rest=Rest("members", "member"),
    indexes={"gateway": indexes.member_gateway},
    filled_in=frozenset({"group", "joined"}),
    checks=(checks.check_listeners, checks.check_unserved),
)
GW_ROUTE = Kind(
    GWRoute,
    resource="gwroutes",
    plural="routes",
    singular="route",
    scope="account",
    writer="account",
    short_names=("gwr", "gwrs"),
    rest=Rest("routes", "route"),
    indexes={
        "gateway": indexes.route_gateways,
        "service": indexes.route_backends,
    },
    checks=(checks.check_matches,),
)
GW_ENDPOINT_SLICE = Kind(
    GWEndpointSlice,
    resource="gwendpointslices",
    plural="slices",
    singular="slice",
    scope="account",
    writer="account",
    short_names=("gwes",),
    rest=Rest("slices", "slice"),
    indexes={
        "service": indexes.slice_service,
    },
    # The EndpointSlice as it is in Kubernetes: clients of the original send it whole.
    known=frozenset(
        {"spec.apiVersion", "spec.kind", "spec.metadata", "spec.ports[].appProtocol"}
        | {
            f"spec.endpoints[].{name}"
            for name in ("deprecatedTopology", "hints", "hostname", "targetRef", "zone")
        }
    ),
    checks=(checks.check_endpoints,),
)
LOAD_BALANCER = Kind(
    LoadBalancer,
    resource="loadbalancers",
    plural="load-balancers",
    singular="load-balancer",
    scope="account",
    writer="account",
    short_names=("lb", "lbs"),
    rest=Rest("services", "service"),
    filled_in=frozenset({"group"}),
    # What EPIC gives is shown in its spec, and may be sent back.
    known=frozenset(
        {"spec.public-address", "spec.alt-address", "spec.endpoints", "spec.gue-tunnel-endpoints"}
    ),
)
REMOTE_ENDPOINT = Kind(
    RemoteEndpoint,
    resource="remoteendpoints",
    plural="remote-endpoints",
    singular="remote-endpoint",
    scope="account",
    writer="account",
    short_names=("rep", "reps"),
    rest=Rest("endpoints", "endpoint"),
    indexes={"load-balancer": indexes.endpoint_balancer, "cluster": indexes.endpoint_cluster},
    filled_in=frozenset({"load_balancer"}),
    known=frozenset({"spec.port.appProtocol"}),
)
NODE = Kind(
    Node,
    resource="nodes",
    plural="nodes",
    singular="node",
    scope="cluster",
    writer="platform",
    rest=Rest("nodes", "node"),
    indexes={"address": indexes.node_address},
    kept=frozenset({"schedulable", "drain", "unheard_ok"}),
)
NODE_REVOCATION = Kind(
    NodeRevocation,
    resource="noderevocations",
    plural="node-revocations",
    singular="node-revocation",
    scope="cluster",
    writer="epic",
)
QUARANTINE = Kind(
    Quarantine,
    resource="quarantines",
    plural="quarantines",
    singular="quarantine",
    scope="cluster",
    writer="epic",
    named=NUMBER_NAME,
    indexes={"gateway": indexes.quarantine_gateway, "node": indexes.quarantine_node},
)
RELEASED_ADDRESS = Kind(
    ReleasedAddress,
    resource="releasedaddresses",
    plural="released-addresses",
    singular="released-address",
    scope="cluster",
    writer="epic",
    named=ADDRESS_NAME,
    indexes={"account": indexes.release_account},
)
TUNNEL = Kind(
    Tunnel,
    resource="tunnels",
    plural="tunnels",
    singular="tunnel",
    scope="account",
    writer="epic",
    named=NUMBER_NAME,
    indexes={
        "gateway": indexes.tunnel_gateway,
        "node": indexes.tunnel_node,
        "workload-node": indexes.tunnel_workload_node,
    },
)
TUNNEL_BACKLOG = Kind(
    TunnelBacklog,
    resource="tunnelbacklogs",
    plural="tunnel-backlogs",
    singular="tunnel-backlog",
    scope="account",
    writer="epic",
    named=ACCOUNT_NAME,
)
SIBLINGS = Kind(
    Siblings,
    resource="siblings",
    plural="siblings",
    singular="siblings",
    scope="account",
    writer="epic",
    indexes={"node": indexes.sibling_nodes},
)
RUN = Kind(
    Run,
    resource="runs",
    plural="runs",
    singular="run",
    scope="cluster",
    writer="epic",
    rest=Rest("runs", "run"),
    named=NUMBER_NAME,
    indexes={"state": indexes.run_state, "node": indexes.run_nodes},
)


class Registry:
    """Kinds by their names, of which none is that of two; in the order in which their objects are made."""

    def __init__(self, kinds: Iterable[Kind[Any]]) -> None:
        self._by_kind: dict[str, Kind[Any]] = {}
        self._by_name: dict[str, Kind[Any]] = {}
        self._by_collection: dict[str, Kind[Any]] = {}
        for kind in kinds:
            self._by_kind[kind.name] = kind
            if kind.rest is not None:
                self._by_collection[kind.rest.collection] = kind
            for name in kind.names:
                if self._by_name.setdefault(name, kind) is not kind:
                    raise ValueError(f"{name!r} is both {self._by_name[name].name} and {kind.name}")

    def __iter__(self) -> Iterator[Kind[Any]]:
        return iter(self._by_kind.values())

    def __contains__(self, kind: str) -> bool:
        return kind in self._by_kind

    def __getitem__(self, kind: str) -> Kind[Any]:
        """The kind that is written so in objects, such as GWProxy; raises KeyError."""
        return self._by_kind[kind]

    def of(self, obj: T) -> Kind[T]:
        """The kind of an object."""
        return cast("Kind[T]", self._by_kind[obj.kind])

    def of_model(self, model: type[T]) -> Kind[T]:
        """The kind whose objects are of this class."""
        return cast("Kind[T]", self._by_kind[model.kind])

    def of_collection(self, collection: str) -> Kind[Any]:
        """The kind whose objects are in a collection of the REST API; raises KeyError."""
        return self._by_collection[collection]

    def find(self, name: str) -> Kind[Any] | None:
        """The kind that people call so, by any of its names, in any case; None: there is none."""
        return self._by_name.get(name.lower())

    def check_name(self, model: type[Resource], name: str, where: str) -> str:
        """The name, if an object of the kind may have it; raises Invalid, saying that it was in `where`."""
        kind = self.of_model(model)
        if not kind.named.allows(name):
            raise Invalid(
                f"{where}: {name!r} cannot be the name of an object of kind {kind.name}; "
                f"such a name has {kind.named.right}"
            )
        return name


KINDS = Registry(
    (
        ACCOUNT,
        SERVICE_PREFIX,
        LB_SERVICE_GROUP,
        NODE,
        USER,
        GW_PROXY,
        GW_MEMBER,
        GW_ROUTE,
        GW_ENDPOINT_SLICE,
        LOAD_BALANCER,
        REMOTE_ENDPOINT,
        NODE_REVOCATION,
        QUARANTINE,
        RELEASED_ADDRESS,
        TUNNEL,
        TUNNEL_BACKLOG,
        SIBLINGS,
        RUN,
    )
)
