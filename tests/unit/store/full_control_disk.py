# SPDX-License-Identifier: Apache-2.0
"""In a mount namespace of its own: fill the disk under a whole control plane, make room again, compare."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import httpx
from full_disk import fill
from stores import open_store

from epic.api.access import auth
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.control.rotate import Rotator
from epic.heartbeats import Heartbeats
from epic.lifecycle.tunnels import Evidence
from epic.live import Live
from epic.model.base import Metadata, now
from epic.model.resources import (
    Account,
    AccountSpec,
    GWProxy,
    LBServiceGroup,
    Node,
    ServicePrefix,
    User,
    UserSpec,
)
from epic.model.runs import Run
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.service import ReconcilerService
from epic.reconcile.siblings_keeper import SiblingsKeeper
from epic.reconcile.turn import LifecycleSettings
from epic.rotation import Policy
from epic.runs.ansible import Outcome
from epic.runs.events import EventHub
from epic.runs.queue import RunQueue
from epic.siblings.heard import AppliedLists
from epic.supervise import keep_running

ADMIN = ("admin", "admin-password")
NOTHING = Evidence(epic_node_known=False, epic_end=False, workload_end=True, applied=None, silent_since=now())
POOL = IPv4Network("100.64.0.0/10")
PROXIES = "/api/epic/accounts/root/groups/g/proxies"


class Lines(logging.Handler):
    """What the log holds."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Executor:
    """Every run does what it is to."""

    def execute(
        self,
        run: str,
        plans: Mapping[str, object],
        on_event: Callable[[Mapping[str, Any]], None],
        canceled: Callable[[], bool],
    ) -> Outcome:
        for node, plan in plans.items():
            instances = [
                {"gateway": item["gateway"], "action": "created"}
                for item in getattr(plan, "instances", ())
                if isinstance(item, dict)
            ]
            data = {"host": node, "task": "T", "res": {"instances": instances}}
            on_event({"event": "runner_on_ok", "event_data": data})
        return Outcome(succeeded=True)


def body(uid: str) -> dict[str, object]:
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    spec = {
        "clientRef": {"clusterID": "c1", "namespace": "shop", "name": uid, "uid": uid},
        "display-name": uid,
        "public-ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 0}],
        "gateway": {"gatewayClassName": "k", "listeners": listeners},
    }
    return {"proxy": {"spec": spec}}


def prepare(store: CachedStore) -> None:
    pool = {"pool": "203.0.113.0/24", "subnet": "203.0.113.0/24"}
    with store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="root"), spec=AccountSpec(proxy_limit=500)))
        transaction.create(
            ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": {"public-pool": pool}})
        )
        group = {"metadata": {"name": "g", "namespace": "root"}, "spec": {"service-prefix": "p"}}
        transaction.create(LBServiceGroup.model_validate(group))
        for i in (1, 2):
            spec = {"address": f"192.0.2.{i}", "capacity": 1000}
            transaction.create(Node.model_validate({"metadata": {"name": f"e{i}"}, "spec": spec}))
        user = UserSpec(password_hash=auth.hash_password(ADMIN[1]), admin=True)
        transaction.create(User(metadata=Metadata(name=ADMIN[0]), spec=user))


@contextlib.asynccontextmanager
async def control_plane(store: CachedStore) -> AsyncIterator[httpx.AsyncClient]:
    hub, applied = EventHub(), AppliedLists()
    lifecycle = Lifecycle(store, LifecycleSettings(POOL, "1"), lambda _: NOTHING, Heartbeats())
    services = {
        "runs": RunQueue(store, Executor(), hub, "1").run,
        "keys": Rotator(store, Live(), Policy(), pause=0.05).run,
        "lives": ReconcilerService(store, lifecycle).run,
        "siblings": ReconcilerService(store, SiblingsKeeper(store, applied, Policy())).run,
    }
    tasks = [asyncio.create_task(keep_running(n, s, first_delay=0.05)) for n, s in services.items()]
    app = create_app(Context(store=store, inside_pool=POOL, run_events=hub))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://epic", auth=ADMIN) as client:
        yield client
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def eventually(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(45):
            while not condition():  # noqa: ASYNC110 - other threads make it true
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None


def is_whole(store: CachedStore, name: str) -> bool:
    proxy = store.find(GWProxy, "root", name)
    return proxy is not None and {i.node for i in proxy.status.instances} == {"e1", "e2"}


def are_done(store: CachedStore) -> bool:
    return all(run.status.state == "succeeded" for run in store.list(Run))


async def main(disk: Path, lines: list[str]) -> None:
    """Raises AssertionError when something was lost or said too often."""
    store = open_store(disk / "epic.db")
    prepare(store)
    made: set[str] = set()
    ballast = disk / "ballast"
    async with control_plane(store) as client:
        assert (await client.post(PROXIES, json=body("first"))).status_code == 302
        made.add("first")
        await eventually(partial(are_done, store), "the first gateway's runs do not end")
        ballast.write_bytes(b"")
        refused = 0
        for number in range(150):
            fill(ballast)
            reply = await client.post(PROXIES, json=body(f"u{number}"))
            if reply.status_code == 302:
                made.add(f"u{number}")
                continue
            refused += 1
            assert reply.status_code == 503, reply.text
            text = "the control plane cannot write now; repeat the request later"
            assert reply.json() == {"error": text, "reason": "NotWritable"}, reply.text
            assert reply.headers["retry-after"].isdecimal()
            listed = await client.get("/api/epic/accounts/root/proxies")
            assert (listed.status_code, len(listed.json()["items"])) == (200, len(made)), listed.text
            await asyncio.sleep(0.02)
        assert refused > 20, f"the disk was never full: {refused} writes were refused"
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"{disk}/epic.db cannot be written: "), lines
        ballast.unlink()
        assert (await client.post(PROXIES, json=body("last"))).status_code == 302
        made.add("last")
        for name in made:
            await eventually(partial(is_whole, store, name), f"{name} does not get its instances")
        await eventually(partial(are_done, store), "what was queued is not done")
        assert len(lines) == 1, lines
    store.close()
    found = sqlite3.connect(disk / "epic.db")
    assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert {proxy.name for proxy in open_store(disk / "epic.db").list(GWProxy)} == made


if __name__ == "__main__":
    mounted = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mounted)], check=True)
    seen = Lines()
    logging.getLogger().addHandler(seen)
    asyncio.run(main(mounted, seen.lines))
