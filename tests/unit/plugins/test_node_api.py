"""The module `node` against the real REST application over TLS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from ansible_collections.epic.gateway.plugins.module_utils._api import Api, ApiError, Credential
from ansible_collections.epic.gateway.plugins.modules.node import reconcile
from argon2 import PasswordHasher

from epic.api import auth
from epic.api.app import create_app
from epic.api.context import Context
from epic.model.base import Metadata
from epic.model.resources import Node, User, UserSpec
from epic.pki import operations
from epic.store.sqlite import SqliteStore

OPTIONS: dict[str, Any] = {
    "name": "epic1",
    "state": "present",
    "address": "192.0.2.1",
    "management_address": "192.0.2.101",
    "underlay_mtu": 1500,
    "capacity": None,
    "schedulable": None,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(auth, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    store = SqliteStore(tmp_path / "epic.db")
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password("secret"), admin=True)
        transaction.create(User(metadata=Metadata(name="admin", namespace=""), spec=spec))
    yield store
    store.close()


@pytest.fixture
def server(store: SqliteStore, tmp_path: Path) -> Iterator[str]:
    """The application on a port of this machine; yields its address."""
    pki = operations.Pki(tmp_path, datetime.now(UTC))
    operations.control(pki, ["localhost"], group=None, life=timedelta(days=90))
    events: Any = SimpleNamespace()
    app = create_app(Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=events))
    tls = {"ssl_certfile": tmp_path / "server.crt", "ssl_keyfile": str(tmp_path / "server.key")}
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", **tls))  # type: ignore[arg-type]
    thread = threading.Thread(target=running.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"https://localhost:{port}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def api(server: str, tmp_path: Path) -> Api:
    return Api(server, Credential("admin", "secret"), str(tmp_path / "ca.crt"))


def test_a_node_is_registered_once(api: Api, store: SqliteStore) -> None:
    assert reconcile(api, OPTIONS, check_mode=False).action == "put"
    assert str(store.get(Node, "", "epic1").spec.address) == "192.0.2.1"
    assert reconcile(api, OPTIONS, check_mode=False).action == "none"


def test_check_mode_registers_nothing(api: Api, store: SqliteStore) -> None:
    assert reconcile(api, OPTIONS, check_mode=True).changed
    assert list(store.list(Node)) == []


def test_a_cordoned_node_stays_cordoned(api: Api, store: SqliteStore) -> None:
    reconcile(api, {**OPTIONS, "schedulable": False}, check_mode=False)
    assert reconcile(api, {**OPTIONS, "underlay_mtu": 9000}, check_mode=False).changed
    spec = store.get(Node, "", "epic1").spec
    assert (spec.underlay_mtu, spec.schedulable) == (9000, False)


def test_a_node_is_removed_once(api: Api, store: SqliteStore) -> None:
    reconcile(api, OPTIONS, check_mode=False)
    absent = {**OPTIONS, "state": "absent"}
    assert reconcile(api, absent, check_mode=False).action == "delete"
    assert store.get(Node, "", "epic1").deleting
    with store.transaction() as transaction:
        transaction.delete(Node, "", "epic1")
    assert reconcile(api, absent, check_mode=False).action == "none"


def test_the_servers_words_reach_the_user(api: Api) -> None:
    with pytest.raises(ApiError, match=r"PUT .*/nodes/epic1: 400 .*underlay-mtu"):
        reconcile(api, {**OPTIONS, "underlay_mtu": 100}, check_mode=False)


def test_a_wrong_password_is_told(server: str, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="401"):
        Api(server, Credential("admin", "wrong"), str(tmp_path / "ca.crt")).get("nodes", "epic1")


def test_a_server_of_another_authority_is_not_trusted(server: str, tmp_path: Path) -> None:
    other = operations.Pki(tmp_path / "other", datetime.now(UTC))
    operations.control(other, ["localhost"], group=None, life=timedelta(days=90))
    with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
        Api(server, Credential("admin", "secret"), str(other.path / "ca.crt")).get("nodes", "epic1")


def test_an_api_that_does_not_answer_is_waited_for_and_then_named(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    with pytest.raises(ApiError, match="GET https://localhost:1/api/epic/nodes/epic1"):
        Api("https://localhost:1", Credential("admin", "x"), str(tmp_path / "ca.crt")).get("nodes", "epic1")
