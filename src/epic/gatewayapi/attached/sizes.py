# SPDX-License-Identifier: Apache-2.0
"""How many bytes virtual hosts and their routes have when Envoy's protobuf encodes them.

It is reckoned before anything is encoded, for what does not fit is not to be built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from epic.gatewayapi.names import cluster_name, host_name, missing_name
from epic.gatewayapi.routing import Header, WeightedCluster
from epic.model.gatewayapi import BackendRef

LARGEST = 1 << 20
"""Bytes that a port's virtual hosts may have."""

_TAG = 1
_LENGTH = 3
"""Of the length of what has less than 2 MiB, at most."""
_ACTION = 5
"""An empty timeout, and that a cluster which is not there answers 500."""
_NOBODY = 5
"""A direct response of 500."""


def host_size(hostname: str) -> int:
    """A virtual host without routes as a field of its port, at most two bytes too many."""
    return _TAG + _LENGTH + _text(host_name(hostname)) + _text(hostname)


def match_size(name: str, path: str, headers: Iterable[Header], action: int) -> int:
    """A route of that name, with one match and an action of that size, as a field of its virtual host."""
    conditions = sum(_field(_text(header.name) + _field(_text(header.value))) for header in headers)
    return _field(_text(name) + _field(_text(path) + conditions) + action)


def action_size(backends: Collection[WeightedCluster]) -> int:
    """What a route does, as a field of it."""
    if not backends:
        return _NOBODY
    shares = sum(_field(_text(s.cluster) + _field(_TAG + _varint(s.weight))) for s in backends)
    return _field(_ACTION + _field(shares))


def heaviest(refs: Iterable[BackendRef]) -> tuple[WeightedCluster, ...]:
    """What backends take most room as, whether they exist or not: they come and go, routes are to stay."""
    shares: dict[tuple[str, ...], WeightedCluster] = {}
    for ref in refs:
        key = (ref.kind or "Service", ref.group or "", ref.name, str(ref.port))
        before = shares[key].weight if key in shares else 0
        names = missing_name(key[0], ref.name, key[1]), cluster_name(ref.name, ref.port)
        shares[key] = WeightedCluster(max(names, key=len), before + ref.weight)
    return tuple(share for share in shares.values() if share.weight)


def _text(text: str) -> int:
    length = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return _field(length)


def _field(length: int) -> int:
    return _TAG + _varint(length) + length


def _varint(number: int) -> int:
    return max(1, -(-number.bit_length() // 7))
