# SPDX-License-Identifier: Apache-2.0
"""Pure: the endpoints that are reached through tunnels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from epic.bpf.dataplane import Address, Endpoint

EndpointKey = tuple[Address, Address]
"""Inside address of an instance, and address of a backend, of one family."""

_BATCH = 4096


def batches(endpoints: Mapping[EndpointKey, Endpoint]) -> Iterator[dict[EndpointKey, Endpoint]]:
    """A few thousand at a time, for each of them takes room while it is set."""
    items = iter(endpoints.items())
    while batch := dict(islice(items, _BATCH)):
        yield batch
