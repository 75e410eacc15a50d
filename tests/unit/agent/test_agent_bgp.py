# SPDX-License-Identifier: Apache-2.0
"""What BIRD says of its sessions, and what the agent makes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from epic.agent.gateway.bgp import bird
from epic.agent.gateway.bgp.sessions import Session, carry_on, read_sessions, without_bird
from epic.agent.gateway.bgp.watch import BgpWatch
from epic.errors import Unavailable
from epic.exposition import exposition

GREETING = "0001 BIRD 2.0.12 ready.\n"
RESTRICTED = "0016 Access restricted\n"
REAL = (Path(__file__).parent / "bird-2.0.12.txt").read_text(encoding="utf-8")
"""What a BIRD 2.0.12 said: one session that its router ended, one without IPv4, one without a router."""
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
AT = datetime(2026, 11, 28, 11, tzinfo=UTC)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host's time is UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def session(name: str = "r", *, up: bool = True, since: datetime = AT, error: str = "") -> Session:
    return Session(name, "192.0.2.1", up, since, error)


def reply(established: bool = True, name: str = "upstream_r", since: str = "2026-11-28 11:00:00") -> str:
    """A shorter one, of one session."""
    state, channel = ("Established", "UP") if established else ("Active", "DOWN")
    return (
        "2002-Name       Proto      Table      State  Since         Info\n"
        f"1002-{name} BGP        ---        start  {since}  {state}   \n"
        f"1006-  BGP state:          {state}\n     Neighbor address: 192.0.2.1\n"
        f"   Channel ipv4\n     State:          {channel}\n \n0000 \n"
    )


async def read(*replies: str) -> list[bird.Line]:
    reader = asyncio.StreamReader()
    reader.feed_data("".join(replies).encode())
    reader.feed_eof()
    return await bird._reply(reader)


async def test_the_sessions_of_a_real_bird(utc: None) -> None:
    ended, six, refused = read_sessions(await read(REAL), NOW)
    assert (ended.name, ended.address, ended.up) == ("upstream_spine-1.dc:2", "172.30.11.1", False)
    assert ended.error == "Received: Administrative shutdown"
    assert NOW - timedelta(hours=1) < ended.since < NOW
    assert (six.name, six.address, six.up) == ("upstream_six", "fd00:11::1", False)
    assert six.error == "the router does not take IPv4 routes"
    assert (refused.up, refused.error) == (False, "Socket: No route to host")


@pytest.mark.parametrize("since", ["11:00:00.123", "2026-13-45 11:00:00", "", "Nov28"])
async def test_a_time_that_is_written_in_another_way_is_the_answers(since: str) -> None:
    (found,) = read_sessions(await read(reply(since=since)), NOW)
    assert (found.up, found.since) == (True, NOW)


async def test_what_bird_says_is_cut_and_cannot_command_a_terminal() -> None:
    lines = await read(reply(established=False).replace("Active", "\x1b[2J" + "x" * 3000))
    (found,) = read_sessions(lines, NOW)
    assert found.error.isprintable() and len(found.error) <= 100


async def test_a_session_that_is_not_for_the_addresses_of_gateways_does_not_count() -> None:
    lines = await read(reply().replace("Channel ipv4", "Channel ipv6"))
    assert read_sessions(lines, NOW) == []


async def test_no_session_at_all() -> None:
    assert read_sessions(await read("1002-device1    Device     ---   up   12:00\n1006-\n0000 \n"), NOW) == []


@pytest.mark.parametrize("text", ["9001 syntax error\n", "8007 Access denied\n"])
async def test_a_refusal_is_no_answer(text: str) -> None:
    with pytest.raises(Unavailable, match="refuses to answer"):
        await read(text)


def test_a_session_that_stays_down_is_down_since_it_went() -> None:
    later = session(up=False, since=NOW)
    assert carry_on({"r": session(up=False)}, [later]) == [session(up=False)]
    assert carry_on({"r": session()}, [later]) == [later]
    assert carry_on({}, [later]) == [later]


def test_without_bird_all_sessions_are_down_those_that_were_since_before() -> None:
    found = without_bird([session("a"), session("b", up=False)], NOW)
    assert [(s.up, s.since) for s in found] == [(False, NOW), (False, AT)]


class Bird:
    """Stands for BIRD: answers with `text`; None: it takes no notice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text: str | None = reply()
        self.asked: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.text is None:  # noqa: ASYNC110 - the test has no event for it
            await asyncio.sleep(0.01)
        writer.write(GREETING.encode())
        while line := await reader.readline():
            self.asked.append(line.decode().strip())
            writer.write((RESTRICTED if line == b"restrict\n" else self.text).encode())
        writer.close()


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Bird]:
    found = Bird(path)
    server = await asyncio.start_unix_server(found.answer, path)
    try:
        yield found
    finally:
        server.close()


class Changes:
    """Counts what the watch tells."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@contextmanager
def no_patience() -> Iterator[None]:
    """Nobody waits for long for an answer that does not come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bird, "_SECONDS", 0.05)
        yield


async def test_the_agent_asks_only_what_it_may(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as answering:
        await BgpWatch(answering.path, Changes()).look(answering.path)
        assert answering.asked == ["restrict", "show protocols all"]


async def test_only_changes_are_told_and_logged_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    changes = Changes()
    async with serving(tmp_path / "s") as answering:
        watch = BgpWatch(answering.path, changes)
        for _ in range(3):
            await watch.look(answering.path)
        assert (changes.count, watch.problems) == (1, [])
        answering.text = reply(established=False)
        for _ in range(3):
            await watch.look(answering.path)
    assert changes.count == 2
    assert [record.getMessage() for record in caplog.records if record.name.endswith("watch")] == [
        "all BGP sessions are established: 1",
        "1 of 1 BGP sessions are down: upstream_r to 192.0.2.1 (Active)",
    ]
    status = watch.status
    assert status is not None and (status.configured, status.established) == (1, 0)
    assert [(s.name, s.address, s.error) for s in status.down] == [("upstream_r", "192.0.2.1", "Active")]
    (problem,) = watch.problems
    assert problem.startswith("the BGP session upstream_r to 192.0.2.1 is down since 2026-11-28T")


async def test_one_look_without_an_answer_says_nothing_two_do(tmp_path: Path) -> None:
    changes = Changes()
    async with serving(tmp_path / "s") as answering:
        watch = BgpWatch(answering.path, changes)
        await watch.look(answering.path)
        answering.text = None
        with no_patience():
            await watch.look(answering.path)
            assert watch.status is not None and watch.status.established == 1
            await watch.look(answering.path)
        assert (watch.status.established, watch.status.configured, changes.count) == (0, 1, 2)
        assert "does not answer" in watch.status.failure
        (problem,) = watch.problems
        assert problem.endswith("no router hears of the node's gateways")
        answering.text = reply()
        await watch.look(answering.path)
        # One that hung believes for a moment in a session that its router has ended.
        assert (watch.status.established, changes.count) == (0, 2)
        await watch.look(answering.path)
        assert (watch.status.established, watch.status.failure, watch.problems) == (1, "", [])


async def test_a_bird_that_is_not_there_is_asked_less_and_less_often(tmp_path: Path) -> None:
    watch = BgpWatch(tmp_path / "none", Changes())
    pauses = []
    for _ in range(20):
        await watch.look(tmp_path / "none")
        pauses.append(watch._pause())
    assert pauses == sorted(pauses) and pauses[-1] == 10.0
    assert watch.status is not None and "cannot be asked" in watch.status.failure


@pytest.mark.parametrize("text", ["x" * 100_000, "1002-x\n" * 1_000_000, "\x00\xff\n" * 99])
async def test_a_bird_that_talks_nonsense_or_too_much_has_not_answered(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path / "s") as answering:
        answering.text = text
        with pytest.raises(Unavailable), no_patience():
            await bird.ask(answering.path, "show protocols all")


async def test_without_a_bird_of_ours_nothing_is_known_and_nobody_waits() -> None:
    watch = BgpWatch(None, Changes())
    await watch.run()
    await watch.wait_known()
    assert (watch.status, watch.problems) == (None, [])
    assert not any(family.lines for family in watch.families)


async def test_problems_and_reports_of_many_sessions_have_a_length(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as answering:
        many = [reply(established=False, name=f"r{i}").removesuffix("0000 \n") for i in range(500)]
        answering.text = "".join(many) + "0000 \n"
        watch = BgpWatch(answering.path, Changes())
        await watch.look(answering.path)
    assert watch.status is not None
    assert (watch.status.configured, len(watch.status.down)) == (500, 20)
    assert len(watch.problems) == 6 and watch.problems[-1] == "495 more BGP sessions are down"


async def test_metrics_tell_which_sessions_are_up(tmp_path: Path) -> None:
    up = 'epic_bgp_session_up{session="upstream_r",neighbor="192.0.2.1"}'
    async with serving(tmp_path / "s") as answering:
        watch = BgpWatch(answering.path, Changes())
        await watch.look(answering.path)
        assert f"{up} 1" in exposition(watch.families)
        answering.text = None
        with no_patience():
            for _ in range(2):
                await watch.look(answering.path)
    text = exposition(watch.families)
    assert f"{up} 0" in text and "epic_bird_up 0" in text
