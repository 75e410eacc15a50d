# SPDX-License-Identifier: Apache-2.0
"""Who takes an account's lists of tunnels: how many may, and how much waits for those who are slow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from epic.errors import TooManyRequests
from epic.log_rate import LogRate
from epic.tunnels import WorkloadNode

_log = LogRate(logging.getLogger(__name__))

OF_NODE = 4
"""Streams of one workload node. An agent that comes again may have left some that nobody knows are dead."""
_SUPERSEDED_BYTES = 32 << 20

Pieces = Generator[bytes, None, None]


class Versioned(Protocol):
    """The list of a node."""

    @property
    def number(self) -> int:
        """That of its newest version."""


class TooManyStreams(TooManyRequests):
    """The account has as many streams of tunnels as it may have."""

    def __init__(self, account: str, most: int) -> None:
        super().__init__(
            f"account {account!r} has {most} streams of tunnels open and may have no more, twice as many as "
            "workload nodes; close some, or ask the platform's administrators for a higher workloadNodeLimit"
        )
        self.seconds = 10


class Stream:
    """One who takes lists, one after the other."""

    def __init__(self) -> None:
        self.ended = False
        self.wake: Callable[[], object] = lambda: None
        """Lets it look whether it has ended."""
        self.part: Part | None = None

    def end(self) -> None:
        """Give it nothing more."""
        self.ended = True
        if self.part is not None:
            self.part.pieces.close()
        self.wake()


@dataclass(frozen=True, eq=False)
class Part:
    """What is left of a list that somebody takes."""

    pieces: Pieces
    size: int
    of: Versioned
    number: int

    @property
    def is_superseded(self) -> bool:
        """Whether there is a newer list."""
        return self.number != self.of.number


class Streams:
    """Those of an account."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._of: dict[WorkloadNode, dict[Stream, None]] = {}
        """The oldest first."""
        self._taking: dict[Stream, None] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def check_room(self, workload: WorkloadNode, most: int) -> None:
        """Raise TooManyStreams if there are as many as may be, and none of this node that could make room."""
        if len(self) >= most and workload not in self._of:
            raise TooManyStreams(self._account, most)

    @contextmanager
    def opened(self, workload: WorkloadNode, most: int) -> Iterator[Stream]:
        """A new stream of the node; its oldest one ends when there are too many.

        The new one has ended already when no room can be made.
        """
        stream, others = Stream(), self._of.get(workload, {})
        if others and (len(others) >= OF_NODE or len(self) >= most):
            oldest = next(iter(others))
            self._remove(workload, oldest)
            oldest.end()
            _log.info(
                "account %s: one stream too many of node %.100r; its oldest was ended",
                self._account,
                workload,
            )
        if len(self) < most:
            self._of.setdefault(workload, {})[stream] = None
        else:
            stream.end()
        try:
            yield stream
        finally:
            self._remove(workload, stream)

    def _remove(self, workload: WorkloadNode, stream: Stream) -> None:
        others = self._of.get(workload, {})
        others.pop(stream, None)
        if not others:
            self._of.pop(workload, None)

    def taken(self, stream: Stream, part: Part) -> Iterator[bytes]:
        """The pieces, until the stream ends: what is not taken then is let go of."""
        stream.part = part
        self._taking[stream] = None
        try:
            yield from part.pieces
        finally:
            stream.part = None
            self._taking.pop(stream, None)

    def drop_superseded(self) -> None:
        """End the streams that have taken longest, if what they take are many bytes of old lists."""
        slow: dict[tuple[Versioned, int], list[Stream]] = {}
        sizes: dict[tuple[Versioned, int], int] = {}
        for stream in self._taking:
            part = stream.part
            if part is not None and part.is_superseded:
                slow.setdefault((part.of, part.number), []).append(stream)
                sizes[part.of, part.number] = part.size
        excess = sum(sizes.values()) - _SUPERSEDED_BYTES
        for version, streams in slow.items():
            if excess <= 0:
                return
            excess -= sizes[version]
            _log.info(
                "account %s: ended %d streams that are slow to take old lists", self._account, len(streams)
            )
            for stream in streams:
                del self._taking[stream]
                stream.end()
