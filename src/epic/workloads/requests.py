# SPDX-License-Identifier: Apache-2.0
"""What workload nodes may say on their streams: they ask for whole types, say what they have, and answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Set

from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.snapshot import WORKLOAD_TYPES

_WORD_MAX = 100
_ANSWER_BYTES = 64 << 10
"""Of a request that does not begin a type: an answer, at most with words of what was refused."""


class StreamRequests:
    """The requests of one stream, as far as they are such; `fault` says why they came to an end before."""

    def __init__(self, requests: AsyncIterator[pb.DeltaDiscoveryRequest]) -> None:
        self._requests = requests
        self._begun: set[str] = set()
        self.fault: str | None = None

    async def read(self) -> AsyncGenerator[pb.DeltaDiscoveryRequest, None]:
        """The requests; after one that makes no sense comes none."""
        async for request in self._requests:
            self.fault = request_fault(request, self._begun)
            if self.fault is not None:
                return
            self._begun.add(request.type_url)
            yield request


def request_fault(request: pb.DeltaDiscoveryRequest, begun: Set[str]) -> str | None:
    """What is wrong with a request on a stream that has `begun` these types; None: nothing."""
    kind = request.type_url
    if kind not in WORKLOAD_TYPES:
        return f"type {kind[:_WORD_MAX]!r} is not served here; types are {', '.join(WORKLOAD_TYPES)}"
    if request.resource_names_subscribe or request.resource_names_unsubscribe:
        return f"{kind}: names are not subscribed to; a node gets all that is its own of a type"
    if kind not in begun:
        return None
    if request.initial_resource_versions:
        return f"{kind}: initial_resource_versions belong in a stream's first request of a type"
    if request.ByteSize() > _ANSWER_BYTES:
        return f"{kind}: an answer of {request.ByteSize()} bytes; at most {_ANSWER_BYTES} are read"
    return None
