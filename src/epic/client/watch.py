# SPDX-License-Identifier: Apache-2.0
"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import requests

from epic.errors import Unavailable


class Watch(Iterator[dict[str, Any]]):
    """The data of the events of one reply. `close`, also from another thread, ends it."""

    def __init__(self, reply: requests.Response, what: str) -> None:
        self._reply = reply
        self._what = what
        self._closed = False
        self._lines = reply.iter_lines(chunk_size=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> dict[str, Any]:
        data = self._next_data()
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Unavailable(f"{self._what}: an event's data is not a JSON object: {data[:80]!r}")
        return value

    def close(self) -> None:
        """End the watch, also when another thread is waiting in it."""
        self._closed = True
        # ValueError: it has ended already.
        with suppress(OSError, RuntimeError, AttributeError, ValueError):
            self._reply.raw.shutdown()
        self._reply.close()

    def _next_data(self) -> str:
        data: list[str] = []
        for line in self._received():
            if line.startswith("data:"):
                data.append(line.removeprefix("data:").removeprefix(" "))
            elif not line and data:
                return "\n".join(data)
        raise StopIteration

    def _received(self) -> Iterator[str]:
        try:
            for line in self._lines:
                yield line.decode()
        except (requests.RequestException, OSError, ValueError, AttributeError) as error:
            # Reading a reply that was closed meanwhile fails in several ways.
            if not self._closed:
                raise Unavailable(f"{self._what}: the connection broke ({error})") from error
