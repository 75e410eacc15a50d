# SPDX-License-Identifier: Apache-2.0
"""What a workload node is told, as it is sent: written once, for all who ask for the same."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Any

from epic.ipam.networks import inside6
from epic.model.resources import Tunnel
from epic.model.values.addresses import Address, order
from epic.model.values.naming import GUE_PORT, GatewayId
from epic.reconcile.counts.workload_index import Told

_PIECE_BYTES = 64 << 10


@dataclass(frozen=True, eq=False)
class Reply:
    """A JSON object; `rest` is all of it but the revision."""

    revision: int
    """The node says it when it has carried out the reply."""
    rest: bytes

    def pieces(self, before: bytes = b"", after: bytes = b"") -> Generator[bytes, None, None]:
        """The reply between these, in pieces that one can wait for."""
        head = b'%b{"revision":%d,' % (before, self.revision)
        if len(self.rest) <= _PIECE_BYTES:
            yield b"%b%b%b" % (head, self.rest, after)
            return
        yield head
        for start in range(0, len(self.rest), _PIECE_BYTES):
            yield self.rest[start : start + _PIECE_BYTES]
        if after:
            yield after


def written(told: Told, revision: int, inside: IPv6Network) -> Reply:
    """The reply; the inside addresses of IPv6 are of the network `inside`."""
    tunnels = sorted((t for t in told.tunnels if not t.deleting), key=lambda tunnel: int(tunnel.name))
    # The newest deletion is part of the reply: one that changes nothing else must be acknowledged too.
    deleted = max((t.metadata.resource_version for t in told.tunnels if t.deleting), default=0)
    # Gateways with the same Services have the same endpoints.
    endpoints = {parts: _endpoints(parts) for parts in set(told.endpoints.values())}
    texts = []
    for tunnel in tunnels:
        address = told.epic_addresses.get(tunnel.spec.epic_node)
        if address is not None:
            behind = endpoints[told.endpoints[tunnel.spec.proxy]]
            texts.append(f'{_tunnel(tunnel, address, inside)[:-1]},"endpoints":{behind}}}')
    return Reply(revision, f'"deleted":{deleted},"tunnels":[{",".join(texts)}]}}'.encode())


def _endpoints(parts: tuple[frozenset[Address], ...]) -> str:
    """Their own addresses: what Envoy may know them by instead does not leave the EPIC cluster."""
    found: frozenset[Address] = frozenset().union(*parts)
    return json.dumps([str(address) for address in sorted(found, key=order)], separators=(",", ":"))


def _tunnel(tunnel: Tunnel, epic_address: Address, inside: IPv6Network) -> str:
    spec = tunnel.spec
    wire: dict[str, Any] = {
        "id": int(tunnel.name),
        "gateway": str(GatewayId(tunnel.account, spec.proxy)),
        "service": spec.service,
        "inside-address": str(spec.inside_address),
        "epic-address": str(epic_address),
        "epic-port": GUE_PORT,
        "keys": [key.wire() for key in spec.keys],
        "signing-epoch": spec.signing_epoch,
        "inside-address6": str(inside6(inside, spec.inside_address)),
    }
    return json.dumps(wire, separators=(",", ":"))
