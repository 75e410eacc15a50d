# SPDX-License-Identifier: Apache-2.0
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
from ansible_collections.epic.gateway.plugins.module_utils._nodes import NodeError
from ansible_collections.epic.gateway.plugins.modules import gateway_info, node_info
from ansible_collections.epic.gateway.plugins.modules import node as module
from ansible_collections.epic.gateway.plugins.modules.node import TimedOut, reconcile
from argon2 import PasswordHasher
from stores import open_store

from epic.api.access import auth
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.nodes import NodeStatus
from epic.model.resources import Account, GWProxy, LBServiceGroup, Node, User, UserSpec
from epic.pki import operations

OPTIONS: dict[str, Any] = {
    "name": "epic1",
    "state": "present",
    "address": "192.0.2.1",
    "management_address": "192.0.2.101",
    "underlay_mtu": 1500,
    "capacity": None,
    "schedulable": None,
    "drain": None,
    "force": False,
    "unheard_ok": False,
    "wait": True,
    "wait_timeout": 5,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CachedStore]:
    monkeypatch.setattr(auth, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    store = open_store(tmp_path / "epic.db")
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password("secret"), admin=True)
        transaction.create(User(metadata=Metadata(name="admin", namespace=""), spec=spec))
    yield store
    store.close()


@pytest.fixture
def server(store: CachedStore, tmp_path: Path) -> Iterator[str]:
    """The application on a port of this machine; yields its address."""
    pki = operations.Pki(tmp_path, datetime.now(UTC))
    operations.control(pki, ["localhost"], group=None, life=timedelta(days=90))
    events: Any = SimpleNamespace()
    app = create_app(Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=events))
    tls = {"ssl_certfile": tmp_path / "server.crt", "ssl_keyfile": str(tmp_path / "server.key")}
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", **tls))  # type: ignore[arg-type]
    thread = threading.Thread(target=running.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"https://localhost:{port}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def api(server: str, tmp_path: Path) -> Api:
    return Api(server, Credential("admin", "secret"), str(tmp_path / "ca.crt"))


def action(api: Api, options: dict[str, Any], *, check_mode: bool = False) -> str:
    steps, _ = reconcile(api, options, check_mode)
    return str(steps.action)


def test_a_node_is_registered_once(api: Api, store: CachedStore) -> None:
    assert action(api, OPTIONS) == "register"
    assert str(store.get(Node, "", "epic1").spec.address) == "192.0.2.1"
    assert action(api, OPTIONS) == "none"


def test_check_mode_registers_nothing(api: Api, store: CachedStore) -> None:
    assert action(api, OPTIONS, check_mode=True) == "register"
    assert list(store.list(Node)) == []


def test_a_cordoned_node_stays_cordoned(api: Api, store: CachedStore) -> None:
    reconcile(api, {**OPTIONS, "schedulable": False}, check_mode=False)
    assert action(api, {**OPTIONS, "underlay_mtu": 9000}) == "register"
    spec = store.get(Node, "", "epic1").spec
    assert (spec.underlay_mtu, spec.schedulable) == (9000, False)


def say(store: CachedStore, **status: Any) -> None:
    """What the control plane's sequencer has come to say of the node."""
    with store.transaction() as transaction:
        node = transaction.get(Node, "", "epic1")
        known = NodeStatus.model_validate({**node.status.wire(), **status})
        transaction.update(node.model_copy(update={"status": known}))


def test_a_node_is_removed_once(api: Api, store: CachedStore) -> None:
    reconcile(api, OPTIONS, check_mode=False)
    absent = {**OPTIONS, "state": "absent", "wait": False}
    assert action(api, absent) == "delete"
    assert store.get(Node, "", "epic1").deleting
    assert action(api, absent) == "none"
    with pytest.raises(TimedOut, match="node epic1 is not as asked for after 0 s; it goes on: Joining"):
        reconcile(api, {**absent, "wait": True, "wait_timeout": 0}, check_mode=False)
    with store.transaction() as transaction:
        transaction.delete(Node, "", "epic1")
    assert action(api, {**absent, "wait": True}) == "none"


def test_a_node_that_is_removed_is_not_registered_meanwhile(api: Api) -> None:
    reconcile(api, OPTIONS, check_mode=False)
    reconcile(api, {**OPTIONS, "state": "absent", "wait": False}, check_mode=False)
    with pytest.raises(NodeError, match="epic1 is being removed"):
        reconcile(api, OPTIONS, check_mode=False)


def test_a_lost_node_is_removed_by_force(api: Api, store: CachedStore) -> None:
    reconcile(api, OPTIONS, check_mode=False)
    assert action(api, {**OPTIONS, "state": "absent", "wait": False, "force": True}) == "forget"
    assert store.get(Node, "", "epic1").status.lost


def test_a_node_is_drained_when_the_control_plane_says_so(
    api: Api, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile(api, OPTIONS, check_mode=False)
    drained = {"type": "Drained", "status": "True", "reason": "NoInstanceServes"}
    pauses: list[float] = []

    def pass_time(seconds: float) -> None:
        pauses.append(seconds)
        say(store, phase="Draining", conditions=[drained])

    monkeypatch.setattr(module.time, "sleep", pass_time)
    steps, node = reconcile(api, {**OPTIONS, "address": None, "drain": True}, check_mode=False)
    assert (steps.action, len(pauses)) == ("maintain", 1)
    assert (node["spec"]["schedulable"], node["spec"]["drain"]) == (False, True)
    assert action(api, {**OPTIONS, "drain": True}) == "none"
    say(store, phase="Ready", conditions=[])
    assert action(api, {**OPTIONS, "drain": False, "schedulable": True}) == "maintain"
    spec = store.get(Node, "", "epic1").spec
    assert (spec.schedulable, spec.drain) == (True, False)


def test_nodes_are_looked_at(api: Api) -> None:
    reconcile(api, OPTIONS, check_mode=False)
    (found,) = map(node_info.shown, node_info.fetch(api, None))
    assert (found["name"], found["phase"], found["serving"]) == ("epic1", "Joining", False)
    assert node_info.fetch(api, "epic2") == []


def test_an_api_that_is_not_there_has_not_said_that_there_are_no_nodes(server: str, tmp_path: Path) -> None:
    elsewhere = Api(f"{server}/elsewhere", Credential("admin", "secret"), str(tmp_path / "ca.crt"))
    with pytest.raises(ApiError, match="404"):
        node_info.fetch(elsewhere, None)
    with pytest.raises(ApiError, match="404"):
        gateway_info.fetch(elsewhere, None)


def test_an_account_that_is_gone_has_no_gateways(api: Api) -> None:
    assert gateway_info.fetch(api, "gone") == []


def test_gateways_of_all_accounts_are_looked_at(api: Api, store: CachedStore) -> None:
    assert gateway_info.fetch(api, None) == []
    instance = {"node": "epic1", "inside-address": "100.64.0.1", "phase": "Serving", "envoy-version": "1.2.3"}
    addresses = {"public-address": "203.0.113.1", "alt-address": "2001:db8::1"}
    proxy = {
        "metadata": {"name": "U1", "namespace": "shop"},
        "spec": {"display-name": "web", "group": "http", **addresses},
        "status": {"instances": [instance]},
    }
    template = {
        "metadata": {"name": "http", "namespace": "shop"},
        "spec": {"service-prefix": "p", "envoy-version": "1.2.3"},
    }
    with store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="shop")))
        transaction.create(LBServiceGroup.model_validate(template))
        transaction.create(GWProxy.model_validate(proxy))
    assert gateway_info.fetch(api, None) == [
        {
            "account": "shop",
            "name": "U1",
            "display_name": "web",
            "public_address": "203.0.113.1",
            "alt_address": "2001:db8::1",
            "deleted": False,
            "envoy_version": "1.2.3",
            "instances": [{"node": "epic1", "phase": "Serving", "envoy_version": "1.2.3"}],
            "serving": True,
        }
    ]


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
