# SPDX-License-Identifier: Apache-2.0
"""Pure: the resources of one workload node, a name a tunnel; only what changed is made anew."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import NamedTuple

from epic.ads.snapshot import NODE_STATE, WORKLOAD_TUNNEL, Differing, Snapshot, Versioned, versioned
from epic.ipam.networks import inside6
from epic.model.resources import Tunnel
from epic.model.values.addresses import Address, order
from epic.model.values.naming import GUE_PORT, GatewayId
from epic.proto import epic_pb2
from epic.reconcile.counts.workload_index import Told

_STATE = "node"

Endpoints = tuple[frozenset[Address], ...]


class _Source(NamedTuple):
    """What a tunnel's resource is made of."""

    tunnel: Tunnel
    address: Address
    endpoints: Endpoints


class Change(NamedTuple):
    """What is other than before: sources and resources by name, None of what is gone."""

    sources: Mapping[str, _Source | None]
    resources: Mapping[str, Versioned | None]
    deleted: int
    """The revision of the newest deletion of a tunnel that is not gone yet."""


class NodeTunnels:
    """What a workload node is to have. `find_change` may be called in a thread while nothing else is."""

    def __init__(self, inside: IPv6Network) -> None:
        """The inside addresses of IPv6 are of the network `inside`."""
        self._inside = inside
        self._sources: dict[str, _Source] = {}
        self._resources: dict[str, Versioned] = {}
        self._state: dict[str, Versioned] = {}
        self._deleted = 0
        self.snapshot: Snapshot = {WORKLOAD_TUNNEL: self._resources, NODE_STATE: self._state}
        """Changed in place."""

    def find_change(self, told: Told) -> Change:
        """What is to be other than it is."""
        wanted: dict[str, _Source] = {}
        for tunnel in told.tunnels:
            address = told.epic_addresses.get(tunnel.spec.epic_node)
            if address is not None and not tunnel.deleting:
                wanted[tunnel.name] = _Source(tunnel, address, told.endpoints[tunnel.spec.proxy])
        sources: dict[str, _Source | None] = dict.fromkeys(self._sources.keys() - wanted.keys())
        sources |= {name: found for name, found in wanted.items() if self._sources.get(name) != found}
        # Gateways with the same Services have the same endpoints.
        texts: dict[Endpoints, list[str]] = {}
        resources = {name: self._resource(found, texts) if found else None for name, found in sources.items()}
        same = {name for name, found in resources.items() if found == self._resources.get(name)}
        # The newest deletion counts too: one that changes nothing else must be acknowledged.
        deleted = max((t.metadata.resource_version for t in told.tunnels if t.deleting), default=0)
        return Change(sources, {n: r for n, r in resources.items() if n not in same}, deleted)

    def take(self, change: Change, revision: int) -> Differing | None:
        """Have it so, as of this revision of the store; None: nothing is to be told."""
        for name, source in change.sources.items():
            if source is None:
                del self._sources[name]
            else:
                self._sources[name] = source
        for name, resource in change.resources.items():
            if resource is None:
                self._resources.pop(name, None)
            else:
                self._resources[name] = resource
        if self._state and not change.resources and change.deleted <= self._deleted:
            return None
        self._deleted = max(change.deleted, self._deleted)
        self._state[_STATE] = versioned(epic_pb2.NodeState(revision=revision))
        return {WORKLOAD_TUNNEL: change.resources.keys(), NODE_STATE: {_STATE}}

    def _resource(self, source: _Source, texts: dict[Endpoints, list[str]]) -> Versioned:
        tunnel, spec = source.tunnel, source.tunnel.spec
        if source.endpoints not in texts:
            # Their own addresses: what Envoy may know them by instead does not leave the EPIC cluster.
            found: frozenset[Address] = frozenset().union(*source.endpoints)
            texts[source.endpoints] = [str(address) for address in sorted(found, key=order)]
        return versioned(
            epic_pb2.WorkloadTunnel(
                id=int(tunnel.name),
                gateway=str(GatewayId(tunnel.account, spec.proxy)),
                service=spec.service,
                inside_address=str(spec.inside_address),
                inside_address6=str(inside6(self._inside, spec.inside_address)),
                epic_address=str(source.address),
                epic_port=GUE_PORT,
                keys=[
                    epic_pb2.Key(epoch=key.epoch, secret=bytes.fromhex(key.secret.get_secret_value()))
                    for key in spec.keys
                ],
                signing_epoch=spec.signing_epoch,
                endpoints=texts[source.endpoints],
            )
        )
