# SPDX-License-Identifier: Apache-2.0
"""Following the list of tunnels of one account, on a thread: the REST client blocks."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from epic.client import PREFIX, EpicClient, Watch
from epic.controller.desired import EpicConnection
from epic.errors import EpicError

log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0

Listener = Callable[[EpicConnection, dict[str, object]], None]


class TunnelWatch:
    """Tells `listener`, in the event loop, what the server lists; connects again for ever."""

    def __init__(self, connection: EpicConnection, node: str, ca: Path | None, listener: Listener) -> None:
        self._connection = connection
        self._node = node
        self._ca = ca
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {connection.account}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the listener hears nothing more. Does not wait."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.close()

    def _run(self) -> None:
        delay = _FIRST_SECONDS
        said = ""
        while not self._stopped.is_set():
            try:
                heard = self._follow()
                problem = "the server ended the watch"
            except EpicError as error:
                heard, problem = False, str(error)
            if self._stopped.is_set():
                return
            if problem != said and not heard:
                log.warning("tunnels of account %s: %s", self._connection.account, problem)
                said = problem
            delay = _FIRST_SECONDS if heard else min(delay * 2, _LONGEST_SECONDS)
            self._stopped.wait(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnections

    def _follow(self) -> bool:
        connection = self._connection
        heard = False
        with (
            EpicClient(connection.server, connection.username, connection.password, self._ca) as client,
            client.watch(path(connection, self._node)) as watch,
        ):
            self._watch = watch
            try:
                # `stop` found no watch to close while this one was being opened: so look after it is there.
                while not self._stopped.is_set() and (data := next(watch, None)) is not None:
                    heard = True
                    self._tell(data)
            except EpicError as error:
                if not heard:
                    raise
                log.info("tunnels of account %s: %s; connecting again", connection.account, error)
            finally:
                self._watch = None
        return heard

    def _tell(self, data: dict[str, object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the agent stops
            self._loop.call_soon_threadsafe(self._listen, data)

    def _listen(self, data: dict[str, object]) -> None:
        if not self._stopped.is_set():
            self._listener(self._connection, data)


def path(connection: EpicConnection, node: str) -> str:
    """Where the server lists the tunnels of this node."""
    query = urlencode({"cluster": connection.cluster, "node": node, "watch": "true"})
    return f"{PREFIX}/accounts/{quote(connection.account, safe='')}/tunnels?{query}"
