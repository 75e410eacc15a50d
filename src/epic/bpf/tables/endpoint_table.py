# SPDX-License-Identifier: Apache-2.0
"""The maps of endpoints: which pairs of addresses may talk, through which tunnel, and under which names."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from epic.bpf.tables import records
from epic.bpf.tables.maps import Maps
from epic.bpf.tables.records import Address, Endpoint
from epic.bpf.tables.tunnel_table import TunnelTable
from epic.errors import Invalid, NotFound

Pair = tuple[Address, Address]
"""Inside address and endpoint."""


class EndpointTable:
    """Endpoints by pair."""

    def __init__(self, maps: Maps, tunnels: TunnelTable) -> None:
        self._maps = maps
        self._tunnels = tunnels
        self._real_keys = {
            pair: _real_key(endpoint) for pair, endpoint in self.all().items() if endpoint.real is not None
        }

    def all(self) -> dict[Pair, Endpoint]:
        """What is there."""
        names: dict[int, str | None] = {0: None}
        found: dict[Pair, Endpoint] = {}
        for key, value in self._maps.endpoints.items():
            if self._leads(value):
                found[IPv4Address(key[:4]), IPv4Address(key[4:])] = _unpack(value, names)
        for key, value in self._maps.endpoints6.items():
            if self._leads(value):
                found[IPv6Address(key[:16]), IPv6Address(key[16:])] = _unpack(value, names)
        return found

    def some(self, pairs: Iterable[Pair]) -> dict[Pair, Endpoint]:
        """Those of these pairs that are there."""
        names: dict[int, str | None] = {0: None}
        found: dict[Pair, Endpoint] = {}
        for pair in pairs:
            table = self._maps.endpoints if pair[0].version == 4 else self._maps.endpoints6
            value = table.get(_key(pair))
            if value is not None and self._leads(value):
                found[pair] = _unpack(value, names)
        return found

    def _leads(self, value: bytes) -> bool:
        """Not when the tunnel was removed and set anew since: the endpoint must be set again, too."""
        slot, tunnel, *_ = records.ENDPOINT.unpack(value)
        return not self._tunnels.has(tunnel) or self._tunnels.slot(tunnel) == slot

    def set(self, endpoints: Mapping[Pair, Endpoint]) -> None:
        """Let these pairs talk; NotFound when a tunnel of theirs is not there.

        OSError when there is no room for all: some may have been set.
        """
        indexes: dict[str, int] = {}
        values: dict[int, dict[bytes, bytes]] = {4: {}, 6: {}}
        for pair, endpoint in endpoints.items():
            slot = self._tunnels.slot(endpoint.tunnel)
            values[_version(pair, endpoint)][_key(pair)] = _pack(endpoint, slot, indexes)
        stale = [self._real_keys.get(pair) for pair in endpoints]
        names = {
            pair: _real_key(endpoint) for pair, endpoint in endpoints.items() if endpoint.real is not None
        }
        try:
            for pair, key in names.items():
                self._maps.mapped.set(key, records.pack_address(pair[1]))
            self._maps.endpoints.set_all(values[4])
            self._maps.endpoints6.set_all(values[6])
        except OSError:
            # Of the names only those stay that lead to something.
            stale += names.values()
            there = self.some(endpoints)
            names = {pair: _real_key(there[pair]) for pair in there if there[pair].real is not None}
            raise
        finally:
            for pair in endpoints:
                self._real_keys.pop(pair, None)
            self._real_keys.update(names)
            self._forget_names(stale)

    def delete(self, pairs: Iterable[Pair]) -> None:
        """The inverse."""
        keys: dict[int, list[bytes]] = {4: [], 6: []}
        stale = []
        for pair in pairs:
            keys[pair[0].version].append(_key(pair))
            stale.append(self._real_keys.pop(pair, None))
        self._maps.endpoints.delete_all(keys[4])
        self._maps.endpoints6.delete_all(keys[6])
        self._forget_names(stale)

    def _forget_names(self, keys: Iterable[bytes | None]) -> None:
        stale = {key for key in keys if key is not None}
        for key in stale.difference(self._real_keys.values()) if stale else ():
            self._maps.mapped.delete(key)


def _version(pair: Pair, endpoint: Endpoint) -> int:
    addresses = (*pair, endpoint.real) if endpoint.real is not None else pair
    versions = {address.version for address in addresses}
    if len(versions) > 1:
        raise Invalid(f"{', '.join(map(str, addresses))}: an endpoint's addresses are of one family")
    return pair[0].version


def _key(pair: Pair) -> bytes:
    return pair[0].packed + pair[1].packed


def _real_key(endpoint: Endpoint) -> bytes:
    return records.REAL_KEY.pack(endpoint.tunnel, records.pack_address(endpoint.real))


def _pack(endpoint: Endpoint, slot: int, indexes: dict[str, int]) -> bytes:
    name = endpoint.interface
    if name is not None and name not in indexes:
        try:
            indexes[name] = socket.if_nametoindex(name)
        except OSError as error:
            raise NotFound(f"the pod's interface {name} cannot be used: {error.strerror}") from error
    index = indexes[name] if name is not None else 0
    return records.ENDPOINT.pack(slot, endpoint.tunnel, index, records.pack_address(endpoint.real))


def _unpack(value: bytes, names: dict[int, str | None]) -> Endpoint:
    _, tunnel, index, real = records.ENDPOINT.unpack(value)
    if index not in names:
        # An interface that is gone has no name, but what is set must not look like what is wanted.
        names[index] = f"#{index}"
        with suppress(OSError):
            names[index] = socket.if_indextoname(index)
    return Endpoint(tunnel, records.unpack_address(real), names[index])
