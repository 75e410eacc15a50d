# SPDX-License-Identifier: Apache-2.0
"""Killed in the middle of writing, every engine has each acknowledged commit, and no half of any.

`EPIC_STORE_KILLS=300` kills more often.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType

import control_store_writer
import store_writer
from etcd_server import EtcdServer, require_etcd
from store_sites import SCHEMA, EtcdSite, SqliteSite, StoreSite
from store_writer import CLIENTS, found_of

from epic.cache.store import CachedStore
from epic.store.location import StoreLocation

_KILLS = int(os.environ.get("EPIC_STORE_KILLS", "3"))
_MOST_COMMITS = 600


def write_until_killed(
    location: StoreLocation, commits: int, kill: Callable[[int], None], writing: ModuleType = store_writer
) -> dict[int, int]:
    """Let a process write, kill after so many commits; the last number acknowledged to each client."""
    command = [sys.executable, str(writing.__file__), location.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    acknowledged: dict[int, int] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):
            if line.endswith("\n"):  # the last one may be cut off
                client, number = map(int, line.split()[:2])
                acknowledged[client] = number
            if count == commits:
                kill(process.pid)
    return acknowledged


async def check(site: StoreSite, numbers: dict[int, int], acknowledged: dict[int, int]) -> None:
    """All that was acknowledged is there, and what changed together is together; `numbers` are brought on."""
    store = await site.open(SCHEMA)
    for client in range(CLIENTS):
        found = await found_of(store, client)
        assert len(found) == 1, f"half a commit: {found}"
        ((number, _),) = found
        known = acknowledged.get(client, numbers.get(client, 0))
        assert known <= number <= known + 1
        numbers[client] = number
    await site.close_all()


async def test_sqlite_keeps_what_it_acknowledged_when_the_writing_process_is_killed(
    sqlite_site: SqliteSite,
) -> None:
    dice = random.Random(1)
    numbers: dict[int, int] = {}
    for _ in range(_KILLS):
        acknowledged = write_until_killed(
            sqlite_site.location, dice.randrange(_MOST_COMMITS), lambda pid: os.kill(pid, signal.SIGKILL)
        )
        await check(sqlite_site, numbers, acknowledged)


async def test_etcd_keeps_what_it_acknowledged_when_it_is_killed(tmp_path: Path) -> None:
    require_etcd()
    server = EtcdServer(tmp_path)
    server.start()
    site = EtcdSite(server.settings())
    dice = random.Random(2)
    numbers: dict[int, int] = {}

    def kill_both(pid: int) -> None:
        server.kill()
        os.kill(pid, signal.SIGKILL)

    for _ in range(_KILLS):
        acknowledged = write_until_killed(site.location, dice.randrange(_MOST_COMMITS), kill_both)
        server.start()
        await check(site, numbers, acknowledged)
    server.stop()


def test_the_control_planes_store_keeps_what_it_acknowledged_when_its_process_is_killed(
    tmp_path: Path,
) -> None:
    location = StoreLocation(sqlite=tmp_path / "epic.db")
    dice = random.Random(3)
    known: dict[int, int] = {}
    for _ in range(_KILLS):
        known |= write_until_killed(
            location,
            dice.randrange(_MOST_COMMITS),
            lambda pid: os.kill(pid, signal.SIGKILL),
            control_store_writer,
        )
        with closing(CachedStore(location)) as store:
            for writer in range(1, control_store_writer.THREADS + 1):
                number, twin = control_store_writer.state(store, writer)
                assert number == twin, "half a commit"
                assert known.get(writer, 0) <= number <= known.get(writer, 0) + 1
                known[writer] = number
