# SPDX-License-Identifier: Apache-2.0
"""The mirror against the real API: idempotence, change, removal, restart, sharing, failures."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epic.client import EpicClient
from epic.controller.desired import Desired, EpicConnection
from epic.controller.mirror import Mirror, failures
from epic.controller.objects import Unseen
from epic.controller.state import StateFile
from epic.errors import Unavailable
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute

ACCOUNT = "/api/epic/accounts/shop"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return _mirror(tmp_path)


def _mirror(tmp_path: Path) -> Mirror:
    return Mirror(
        StateFile(tmp_path / "state" / "made.json"), lambda c: EpicClient(c.server, c.username, c.password)
    )


def test_everything_is_made_and_a_second_time_nothing_is_written(
    admin: EpicClient, live_api: Any, mirror: Mirror, desired: Callable[..., Desired]
) -> None:
    assert [o.action for o in mirror.reconcile(desired())] == ["created"] * 3
    revision = live_api.store.revision
    assert mirror.reconcile(desired()) == []
    assert live_api.store.revision == revision
    (proxy,) = admin.get(f"{ACCOUNT}/proxies")["items"]
    assert list(proxy["spec"]["gue-tunnel-endpoints"]) == ["192.168.50.11"]


def test_a_change_is_written_by_put(
    admin: EpicClient, mirror: Mirror, desired: Callable[..., Desired]
) -> None:
    mirror.reconcile(desired())

    def other_port(content: dict[str, Any]) -> None:
        content["spec"]["listeners"][0]["port"] = 8080

    actions = {o.address.collection: o.action for o in mirror.reconcile(desired(Gateway=other_port))}
    assert actions == {"proxies": "configured"}
    (proxy,) = admin.get(f"{ACCOUNT}/proxies")["items"]
    assert proxy["spec"]["public-ports"][0]["port"] == 8080


def test_what_is_desired_no_more_is_deleted_also_after_a_restart(
    admin: EpicClient, live_api: Any, tmp_path: Path, desired: Callable[..., Desired]
) -> None:
    _mirror(tmp_path).reconcile(desired())
    outcomes = _mirror(tmp_path).reconcile(Desired())
    assert [(o.address.collection, o.action) for o in outcomes] == [
        ("routes", "deleted"),
        ("slices", "deleted"),
        ("proxies", "deleted"),
    ]
    assert not [o for kind in (GWRoute, GWEndpointSlice) for o in live_api.store.list(kind)]
    assert [proxy.deleting for proxy in live_api.store.list(GWProxy)] == [True]
    assert _mirror(tmp_path).reconcile(Desired()) == []


def test_what_is_being_deleted_is_not_taken_for_what_is_desired_and_made_anew_afterwards(
    admin: EpicClient, live_api: Any, mirror: Mirror, desired: Callable[..., Desired]
) -> None:
    mirror.reconcile(desired())
    (proxy,) = live_api.store.list(GWProxy)
    admin.delete(f"{ACCOUNT}/proxies/{proxy.name}")
    mirror.expire()
    (outcome,) = [o for o in mirror.reconcile(desired()) if o.address.collection == "proxies"]
    assert (outcome.action, outcome.message[:20]) == ("failed", "it is being deleted;")
    with live_api.store.transaction() as transaction:
        transaction.delete(GWProxy, proxy.account, proxy.name)
    (outcome,) = [o for o in mirror.reconcile(desired()) if o.address.collection == "proxies"]
    assert outcome.action == "created"


def test_held_objects_and_objects_of_unknown_files_stay(
    admin: EpicClient, mirror: Mirror, desired: Callable[..., Desired]
) -> None:
    made = desired()
    mirror.reconcile(made)
    assert mirror.reconcile(Desired(), Unseen(files=frozenset({"shop.yaml"}))) == []
    assert mirror.reconcile(Desired(), Unseen(refs=frozenset(item.ref for item in made.items))) == []
    held = frozenset(item.ref for item in made.items)
    assert mirror.reconcile(Desired(held=held)) == []


def test_an_unreachable_server_is_asked_once_and_everything_is_tried_again_later(
    mirror: Mirror, desired: Callable[..., Desired], live_api: Any, admin: EpicClient
) -> None:
    nowhere = EpicConnection("http://127.0.0.1:1", "shop", "shop", "x", "lab")
    found = desired()
    lost = replace(
        found,
        connections=(nowhere,),
        proxies=tuple(replace(i, connection=nowhere) for i in found.proxies),
        slices=tuple(replace(i, connection=nowhere) for i in found.slices),
        routes=(),
    )
    outcomes = mirror.reconcile(lost)
    assert [(o.action, o.reason) for o in outcomes] == [("failed", "Unavailable")] * 2
    assert failures(outcomes)[0].count("http://127.0.0.1:1") == 1


def test_a_refused_object_does_not_stop_the_others(
    admin: EpicClient, mirror: Mirror, desired: Callable[..., Desired]
) -> None:
    wanted = desired()
    broken = replace(wanted.proxies[0], group="nonsense")
    outcomes = mirror.reconcile(replace(wanted, proxies=(broken,)))
    assert [o.action for o in outcomes] == ["failed", "created", "created", "warned"]
    assert "There is no gateway" in outcomes[-1].message
    assert "nonsense" in outcomes[0].message


def test_the_state_is_for_root_only_and_a_broken_one_is_named(
    admin: EpicClient, tmp_path: Path, desired: Callable[..., Desired]
) -> None:
    _mirror(tmp_path).reconcile(desired())
    path = tmp_path / "state" / "made.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("{")
    with pytest.raises(Unavailable, match=r"made\.json"):
        _mirror(tmp_path).reconcile(desired())
