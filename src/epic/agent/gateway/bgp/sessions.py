# SPDX-License-Identifier: Apache-2.0
"""BGP sessions as `show protocols all` tells of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from epic.agent.gateway.bgp.bird import Line
from epic.printable import escape

COMMAND = "show protocols all"
_PROTOCOL, _DETAIL = 1002, 1006
_SINCE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_FLAG_ROUTES = "ipv4"
"""The channel of gateways' addresses. A session without it is meant for something else."""
_TEXT_MAX = 100


@dataclass(frozen=True)
class Session:
    """A BGP session. `up`: the router hears of gateways; `error` says why it does not, where that is known.

    `since` is when it became so.
    """

    name: str
    address: str
    up: bool
    since: datetime
    error: str = ""


@dataclass
class _Protocol:
    name: str
    since: datetime
    details: dict[str, str] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    """The state of each."""


def read_sessions(lines: Iterable[Line], time: datetime) -> list[Session]:
    """The sessions in a reply; `time` is when it came."""
    return [_session(protocol) for protocol in _protocols(lines, time) if _FLAG_ROUTES in protocol.channels]


def carry_on(before: Mapping[str, Session], sessions: Iterable[Session]) -> list[Session]:
    """The sessions; one that was up, or down, before is so since then.

    BIRD counts anew with each attempt.
    """
    return [
        replace(session, since=old.since)
        if (old := before.get(session.name)) is not None and old.up == session.up
        else session
        for session in sessions
    ]


def without_bird(sessions: Iterable[Session], time: datetime) -> list[Session]:
    """The sessions while BIRD does not answer: who does not speak is not heard."""
    return [
        replace(session, up=False, since=time if session.up else session.since, error="BIRD does not answer")
        for session in sessions
    ]


def _protocols(lines: Iterable[Line], time: datetime) -> list[_Protocol]:
    found: list[_Protocol] = []
    current: _Protocol | None = None
    channel = ""
    for code, text in lines:
        if code == _PROTOCOL:
            current, channel = _head(text, time), ""
            found += [current] if current else []
        elif code == _DETAIL and current:
            key, _, value = text.strip().partition(":")
            if key.startswith("Channel "):
                channel = key.removeprefix("Channel ")
            elif channel and key == "State":
                current.channels[channel] = value.strip()
            elif not channel:
                current.details[key] = value.strip()
    return found


def _head(text: str, time: datetime) -> _Protocol | None:
    """Name, protocol, table, state, since, info; None when it is no BGP."""
    words = text.split(maxsplit=4)
    if len(words) < 4 or words[1] != "BGP":
        return None
    return _Protocol(words[0], _since(words[4] if len(words) > 4 else "", time))


def _since(text: str, time: datetime) -> datetime:
    stated = _SINCE.match(text)
    try:
        # BIRD writes the host's time.
        return datetime.fromisoformat(stated[0]).astimezone(UTC) if stated else time
    except ValueError:
        return time


def _session(protocol: _Protocol) -> Session:
    state = protocol.details.get("BGP state", "")
    error = protocol.details.get("Last error", "") or state
    up = state == "Established"
    if up and protocol.channels[_FLAG_ROUTES] != "UP":
        up, error = False, "the router does not take IPv4 routes"
    return Session(
        name=_short(protocol.name),
        address=_short(protocol.details.get("Neighbor address", "")),
        up=up,
        since=protocol.since,
        error="" if up else _short(error),
    )


def _short(text: str) -> str:
    return escape(text)[:_TEXT_MAX]
