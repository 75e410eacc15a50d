# SPDX-License-Identifier: Apache-2.0
"""What tests of several rooms use: the real API, served on a port of this machine, and a real etcd."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import uvicorn
from argon2 import PasswordHasher
from etcd_server import EtcdServer, require_etcd
from hypothesis import HealthCheck, settings
from life_plant import Clock, Plant
from stores import open_store

from epic.api.access import auth
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.live import Live
from epic.model.base import Metadata
from epic.model.resources import Node, User, UserSpec

# No example is held against a clock, and all runs have the same ones; others: --hypothesis-profile=random
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("random"), derandomize=True)
settings.load_profile("same")

ADMIN = ("admin", "admin-password")

_SLOW = (
    "ads/",
    "api/",
    "control/",
    "controller/",
    "reconcile/",
    "store/",
    "workloads/",
    "agent/test_agent_certificate.py",
    "agent/test_agent_dirty.py",
    "agent/test_agent_end.py",
    "agent/test_agent_envoys.py",
    "agent/test_agent_failures.py",
    "agent/test_agent_xds.py",
    "cache/test_cache_feed.py",
    "cli/test_cli_backup.py",
    "cli/test_cli_tunnels.py",
    "cli/test_epicctl.py",
    "client/test_rest.py",
    "envoy/test_builders.py",
    "envoy/test_isolated.py",
    "envoy/test_validate.py",
    "gatewayapi/test_translate.py",
    "ipam/test_ipam_book.py",
    "ipam/test_ipam_cycles.py",
    "kinds/test_kinds_limits.py",
    "kinds/test_kinds_strategy.py",
    "kinds/test_kinds_unknown_fields.py",
    "pki/test_epic_pki.py",
    "plugins/test_node_api.py",
    "roles/test_flags.py",
    "runs/test_runs_queue.py",
    "test_life_sequences.py",
    "test_overlap.py",
    "test_placement.py",
)
"""Rooms whose tests have a store, servers or processes, and files that take more than two seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` has no time for."""
    room = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(room) and str(item.path.relative_to(room)).startswith(_SLOW):
            item.add_marker(pytest.mark.slow)


class _NoEvents:
    async def follow(self, run: str, *, live: bool) -> AsyncIterator[Mapping[str, object]]:
        for item in ({"event": "started", "run": run},):
            yield item


@dataclass
class LiveAPI:
    """Where the API is, who may do everything there, and what is behind it."""

    url: str
    username: str
    password: str
    store: CachedStore
    live: Live


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd of this process's own."""
    require_etcd()
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def live_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveAPI]:
    """An API with an administrator and two nodes, and nothing else."""
    monkeypatch.setattr(auth, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password(ADMIN[1]), admin=True)
        transaction.create(User(metadata=Metadata(name=ADMIN[0]), spec=spec))
        for i in (1, 2):
            node = {"metadata": {"name": f"epic{i}"}, "spec": {"address": f"192.0.2.{i}"}}
            transaction.create(Node.model_validate(node))
    context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=_NoEvents())
    config = uvicorn.Config(create_app(context), host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield LiveAPI(f"http://127.0.0.1:{port}", *ADMIN, store, context.live)
    server.should_exit = True
    thread.join()
    store.close()


@pytest.fixture
def nodes_at_work(live_api: LiveAPI) -> Iterator[Plant]:
    """The rest of the control plane behind the API, and nodes that do what they are told."""
    plant = Plant(live_api.store, Clock(), IPv4Network("100.64.0.0/10"))
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            plant.settle(turns=1)

    thread = threading.Thread(target=work)
    thread.start()
    yield plant
    stop.set()
    thread.join()
