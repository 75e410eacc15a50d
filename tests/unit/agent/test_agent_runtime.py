# SPDX-License-Identifier: Apache-2.0
"""The runtime of both roles.

- A task that fails stops nothing but itself: it is said once, counted, and runs again.
- A vital task that fails ends the agent.
- A trouble is logged when it begins, when it changes and when it is over.
- Nothing is removed before all sources are known.
- What takes long is done in parts, and others have their turns in between.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from epic.agent.runtime import supervisor
from epic.agent.runtime import systemd as systemd_module
from epic.agent.runtime.completeness import Completeness
from epic.agent.runtime.log_once import LogOnce
from epic.agent.runtime.supervisor import Supervisor
from epic.agent.runtime.systemd import beat, beat_during, keep_beating
from epic.agent.runtime.turns import in_turns
from epic.agent.runtime.worker import Worker


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_SECONDS", 0.001)


async def test_a_long_loop_lets_others_have_their_turns() -> None:
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(seen))
            await asyncio.sleep(0)

    seen: list[int] = []
    task = asyncio.create_task(other())
    async for item in in_turns(range(10), part=4):
        # The other one looks at it meanwhile.
        seen.append(item)  # noqa: PERF401
    task.cancel()
    assert (seen, turns) == (list(range(10)), [4, 8])


async def test_what_the_worker_does_in_parts_lets_other_calls_in_between() -> None:
    worker, done = Worker("test"), list[str]()
    left = iter(["a", "b", "c"])
    try:
        items = (done.append(f"read {n}") or n for n in range(4))
        collecting = asyncio.create_task(worker.collect(items, at_once=2))
        await asyncio.sleep(0)
        await worker.run(done.append, "another")
        assert await collecting == [0, 1, 2, 3]
        assert done == ["read 0", "read 1", "another", "read 2", "read 3"]
        await worker.repeat(lambda: next(left, None) is not None)
        assert list(left) == []
    finally:
        worker.close()


class Work:
    """Fails so often, and then goes on until it is cancelled."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.begun = 0
        self.works = asyncio.Event()

    async def run(self) -> None:
        self.begun += 1
        if self.begun <= self.failures:
            raise RuntimeError("no room")
        self.works.set()
        await asyncio.Event().wait()


async def supervised(tasks: Supervisor, until: Callable[[], Awaitable[object]]) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(tasks.run(stop))
    async with asyncio.timeout(60):
        await until()
        stop.set()
        await running


async def test_a_task_that_fails_runs_again_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Work(3), Work(0)
    tasks = Supervisor()
    tasks.add("saver", bad.run)
    tasks.add("client", good.run)
    await supervised(tasks, bad.works.wait)
    assert (bad.begun, good.begun) == (4, 1)
    assert tasks.failures == {"saver": 3}
    (said,) = [r.message for r in caplog.records if r.levelno >= logging.ERROR]
    assert said.startswith("saver failed: RuntimeError: no room (test_agent_runtime.py:")


async def test_a_task_that_has_nothing_to_do_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing() -> None: ...

    tasks = Supervisor()
    tasks.add("metrics", nothing)
    await supervised(tasks, lambda: asyncio.sleep(0.01))
    assert not tasks.failures


async def test_a_vital_task_that_fails_ends_the_agent() -> None:
    tasks = Supervisor()
    tasks.add("announcer", Work(1).run, vital=True)
    tasks.add("client", Work(0).run)
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(60):
            await tasks.run(asyncio.Event())
    assert tasks.failures == {"announcer": 1}


async def test_systemd_hears_that_the_agent_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        tasks = Supervisor()
        tasks.add("heartbeat", keep_beating, vital=True)
        await supervised(tasks, lambda: asyncio.sleep(0.01))
        assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


async def test_an_event_loop_that_hangs_does_not_say_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What systemd hears comes from the loop itself, never from a thread that outlives its hanging."""
    monkeypatch.setattr(systemd_module, "HEARTBEAT_SECONDS", 0.001)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        beating = asyncio.create_task(keep_beating())

        def heard() -> int:
            count = 0
            with suppress(BlockingIOError):
                while systemd.recv(100):
                    count += 1
            return count

        async with asyncio.timeout(60):
            while not heard():  # noqa: ASYNC110 - a socket of the test's own
                await asyncio.sleep(0.001)
        heard()
        time.sleep(0.05)  # noqa: ASYNC251 - this is the hanging
        assert heard() == 0
        beating.cancel()


async def test_a_busy_systemd_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with pytest.raises(BlockingIOError):
            while True:
                systemd_module.notify("STATUS=", socket.MSG_DONTWAIT)
        # This is the test: it would wait for ever.
        beat()


async def test_who_waits_for_the_kernel_lives_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[None] = []
    monkeypatch.setattr(systemd_module, "beat", lambda: beats.append(None))
    monkeypatch.setattr(systemd_module, "HEARTBEAT_SECONDS", 0.001)
    answered = asyncio.Event()

    async def wait() -> str:
        await answered.wait()
        return "answer"

    waiting = asyncio.create_task(beat_during(wait(), 60))
    async with asyncio.timeout(60):
        while len(beats) < 5:  # noqa: ASYNC110 - it says nothing else
            await asyncio.sleep(0.001)
    answered.set()
    assert await waiting == "answer"
    beats.clear()
    answered.clear()
    hanging = asyncio.create_task(beat_during(wait(), 0))
    await asyncio.sleep(0.01)
    assert not beats
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_what_fails_while_it_is_waited_for_fails() -> None:
    async def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await beat_during(fail(), 60)


def test_a_trouble_is_said_when_it_begins_changes_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles = LogOnce(logging.getLogger("agent"))
    for text in ("no table", "no table", "no set", "", ""):
        troubles.report("firewall", text)
    assert [r.message for r in caplog.records] == ["no table", "no set", "over: no set"]
    assert troubles.problems == ()
    troubles.report("disk", "full")
    assert troubles.problems == ("full",)


def test_nothing_is_complete_before_all_sources_are_known() -> None:
    known = Completeness(["instances", "tunnels"])
    assert not known.complete
    known.mark("instances")
    assert known.missing == {"tunnels"}
    known.mark("tunnels")
    assert known.complete
    known.expect(["tunnels", "endpoints"])
    assert known.missing == {"endpoints"}
