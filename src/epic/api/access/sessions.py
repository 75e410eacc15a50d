# SPDX-License-Identifier: Apache-2.0
"""Event streams that are open: each ends when its user is changed or deleted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epic.api.replies import too_many
from epic.model.resources import User
from epic.store.interface import Store
from epic.supervise import TellOnce

log = logging.getLogger(__name__)

_EVENT_STREAM = "text/event-stream"
_PAUSE_SECONDS = 1.0


@dataclass(eq=False)
class _Session:
    """A stream: who it is for, and the task that sends it."""

    user: User
    task: asyncio.Task[object]
    revoked: bool = False
    refused: bool = False

    def revoke(self) -> None:
        """End the stream."""
        if not self.revoked:
            self.revoked = True
            self.task.cancel()


class Sessions:
    """Follows the store's users while streams are open; users of one account, or of none, may have `most`."""

    def __init__(self, store: Store, most: int) -> None:
        self._store = store
        self._most = most
        self._open: set[_Session] = set()
        self._of_account: Counter[str] = Counter()
        self._watcher: asyncio.Task[None] | None = None
        self._tell = TellOnce(log)

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, user: User) -> None:
        """Let the application answer the request of this user."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an ASGI application runs in a task
        session = _Session(user, task)
        try:
            await app(scope, receive, _noticing(send, lambda: self._begin(session)))
        except asyncio.CancelledError:
            if not session.revoked or task.uncancel() > 0:
                raise
            if session.refused:
                return await too_many("event streams", user.account)(scope, receive, send)
            log.info("ended a stream of user %s, who was changed or deleted", user.name)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._end(session)

    def _begin(self, session: _Session) -> bool:
        """Whether the stream may begin; if not, its task is cancelled."""
        account = session.user.account
        if self._of_account[account] >= self._most:
            session.refused = True
            session.revoke()
            return False
        self._of_account[account] += 1
        self._open.add(session)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="sessions")
        elif self._current(session.user) != session.user:
            # Changed after the credential was verified; what changes from now on is watched.
            session.revoke()
        return True

    def _end(self, session: _Session) -> None:
        if session in self._open:
            self._open.remove(session)
            self._of_account[session.user.account] -= 1
            if not self._of_account[session.user.account]:
                del self._of_account[session.user.account]
        if not self._open and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self) -> None:
        while True:
            try:
                since = self._store.revision
                for session in list(self._open):
                    if self._current(session.user) != session.user:
                        session.revoke()
                self._tell.success("following the users")
                async for change in self._store.watch(since):
                    if change.kind == User.kind:
                        self._changed(change.account, change.name, change.object)
            except Exception as error:
                self._tell.fault("following the users", error)
                await asyncio.sleep(_PAUSE_SECONDS)

    def _changed(self, account: str, name: str, current: object) -> None:
        for session in list(self._open):
            if (session.user.account, session.user.name) == (account, name) and session.user != current:
                session.revoke()

    def _current(self, user: User) -> User | None:
        return self._store.find_readable(User, user.account, user.name)


def _noticing(send: Send, begin: Callable[[], bool]) -> Send:
    """`send` that asks `begin` when an event stream begins, and sends nothing of it if that says no."""

    async def noticing(message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            if kind.startswith(_EVENT_STREAM) and not begin():
                # Until the task is cancelled, which it was told to be.
                await asyncio.get_running_loop().create_future()
        await send(message)

    return noticing
