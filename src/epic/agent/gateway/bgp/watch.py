# SPDX-License-Identifier: Apache-2.0
"""Looking at BIRD's sessions all the time, and telling what became of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from epic.agent.gateway.bgp import bird
from epic.agent.gateway.bgp.sessions import COMMAND, Session, carry_on, read_sessions, without_bird
from epic.errors import Unavailable
from epic.exposition import Family
from epic.log_rate import LogRate
from epic.proto import epic_pb2

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_AGAIN_SECONDS = 0.5
_MOST_SECONDS = 10.0
_FAILS_AFTER = 2
"""Looks in a row. systemd starts a BIRD that has ended anew within a second or two."""
_KNOWN_SECONDS = 8.0
_SHOWN = 5
_REPORTED = 20


class BgpWatch:
    """The sessions of the BIRD on that socket; None: the node's is none of ours, and nothing is known of it.

    `changed` is called when something else is to be reported. A BIRD that does not answer is asked less and
    less often, down to every ten seconds.
    """

    def __init__(self, socket: Path | None, changed: Callable[[], None]) -> None:
        self._socket = socket
        self._changed = changed
        self._rate = LogRate(log)
        self._known = asyncio.Event()
        self._failures = 0
        self._failure = ""
        self._answers_again = False
        self.sessions: Sequence[Session] = ()
        """As they were when BIRD answered last; when it does not any more, they are down."""

    async def run(self) -> None:
        """Look until cancelled."""
        if self._socket is None:
            return
        while True:
            await self.look(self._socket)
            await asyncio.sleep(self._pause())

    async def wait_known(self) -> None:
        """Return when it is known what is to be reported, or will not be for a while."""
        if self._socket is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_KNOWN_SECONDS):
                    await self._known.wait()

    async def look(self, socket: Path) -> None:
        """Ask once."""
        try:
            lines = await bird.ask(socket, COMMAND)
        except Unavailable as error:
            self._failures += 1
            self._answers_again = False
            if self._failures >= _FAILS_AFTER:
                self._conclude(without_bird(self.sessions, _now()), str(error))
            return
        self._failures = 0
        if self._failure and not self._answers_again:
            # One that hung takes sessions for established that its routers have ended, until it looks.
            self._answers_again = True
            return
        before = {session.name: session for session in self.sessions}
        self._conclude(carry_on(before, read_sessions(lines, _now())), "")

    @property
    def status(self) -> epic_pb2.BgpSessions | None:
        """What is reported; None as long as nothing is known."""
        if not self._known.is_set():
            return None
        down = [session for session in self.sessions if not session.up]
        return epic_pb2.BgpSessions(
            configured=len(self.sessions),
            established=len(self.sessions) - len(down),
            down=[
                epic_pb2.BgpSession(
                    name=s.name, address=s.address, since=int(s.since.timestamp()), error=s.error
                )
                for s in down[:_REPORTED]
            ],
            failure=self._failure,
        )

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        if self._failure:
            return [f"{self._failure}: no router hears of the node's gateways"]
        down = [session for session in self.sessions if not session.up]
        more = [f"{len(down) - _SHOWN} more BGP sessions are down"] if len(down) > _SHOWN else []
        return [*map(_problem, down[:_SHOWN]), *more]

    @property
    def families(self) -> tuple[Family, ...]:
        """Metrics."""
        answers = Family("epic_bird_up", "gauge", "Whether BIRD answers the agent.")
        if self._known.is_set():
            answers.add(not self._failure)
        up = Family("epic_bgp_session_up", "gauge", "Whether the session's router hears of gateways.")
        for session in self.sessions:
            up.add(session.up, session=session.name, neighbor=session.address)
        return answers, up

    def _pause(self) -> float:
        if not self._failures:
            return _LOOK_SECONDS
        return min(_AGAIN_SECONDS * 2.0 ** min(self._failures, 10), _MOST_SECONDS)

    def _conclude(self, sessions: Sequence[Session], failure: str) -> None:
        before = self.sessions, self._failure
        self._say(sessions, failure)
        self.sessions, self._failure = sessions, failure
        if not self._known.is_set() or before != (sessions, failure):
            self._known.set()
            self._changed()

    def _say(self, sessions: Sequence[Session], failure: str) -> None:
        """One line when other sessions are up than before, or when BIRD answers or does not any more."""
        if self._known.is_set() and (failure, _names(sessions)) == (self._failure, _names(self.sessions)):
            return
        down = [f"{s.name} to {s.address} ({s.error})" for s in sessions if not s.up]
        if failure:
            self._rate.warning("%s: no router hears of the node's gateways", failure)
        elif down:
            more = f", and {len(down) - _SHOWN} more" if len(down) > _SHOWN else ""
            names = ", ".join(down[:_SHOWN])
            self._rate.warning("%d of %d BGP sessions are down: %s%s", len(down), len(sessions), names, more)
        else:
            log.info("all BGP sessions are established: %d", len(sessions))


def _names(sessions: Sequence[Session]) -> set[tuple[str, bool]]:
    return {(session.name, session.up) for session in sessions}


def _problem(session: Session) -> str:
    since = session.since.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"the BGP session {session.name} to {session.address} is down since {since}: {session.error}"


def _now() -> datetime:
    return datetime.now(UTC)
