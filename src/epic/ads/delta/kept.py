# SPDX-License-Identifier: Apache-2.0
"""How much the streams of one owner keep: what their clients have named, what waits, what is unanswered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

from epic.ads.delta.subscription import NAME_BYTES

KeepRefusal = Callable[[str, int, int], str | None]
"""Given an owner, the bytes that one of its streams would keep, and all of them: why not, or None."""

_REQUEST_BYTES = 1000

Context = grpc.aio.ServicerContext[pb.DeltaDiscoveryRequest, pb.DeltaDiscoveryResponse]


@dataclass(frozen=True)
class KeepLimits:
    """What may be kept for clients."""

    most_remembered: int | None = None
    """Bytes for one stream, besides requests that wait."""
    owner_of: Callable[[Context], str] = lambda _: ""
    """Whose a stream is."""
    refusal: KeepRefusal = lambda *_: None
    """Asked before a stream keeps more than it did."""


class RequestSize(NamedTuple):
    """Bytes, about."""

    waiting: int
    """What the request takes."""
    lasting: int
    """The same, or what may be kept of its names when it was taken in, at most."""


def request_size(request: pb.DeltaDiscoveryRequest) -> RequestSize:
    """What a request takes while it waits, and later."""
    waiting = _REQUEST_BYTES + request.ByteSize()
    names = len(request.initial_resource_versions) + len(request.resource_names_subscribe)
    return RequestSize(waiting, waiting + NAME_BYTES * names)


class Kept:
    """Sums by owner, in bytes. It belongs to one event loop."""

    def __init__(self, refusal: KeepRefusal) -> None:
        self._refusal = refusal
        self._sums: Counter[str] = Counter()

    def change(self, owner: str, before: int, after: int) -> str | None:
        """A stream of the owner keeps more or less than before; if that is too much nothing is changed, and
        the words say why."""
        total = self._sums[owner] + after - before
        if after > before and (words := self._refusal(owner, after, total)) is not None:
            return words
        self._sums[owner] = total
        if not total:
            del self._sums[owner]
        return None
