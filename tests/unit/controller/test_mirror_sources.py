# SPDX-License-Identifier: Apache-2.0
"""Several hosts that ask for one object: what the first wants counts, the others say so, none flips it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epic.client import EpicClient
from epic.controller.desired import Desired
from epic.controller.mirror import Mirror, MirrorSettings, failures
from epic.controller.state import StateFile
from epic.errors import Conflict
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute
from epic.model.values.naming import SOURCES_ANNOTATION

ACCOUNT = "/api/epic/accounts/shop"
Desire = Callable[..., Desired]


def _host(tmp_path: Path, name: str) -> Mirror:
    return Mirror(
        StateFile(tmp_path / name / "made.json"),
        lambda c: EpicClient(c.server, c.username, c.password),
        MirrorSettings(f"lab/{name}"),
    )


def _other_port(content: dict[str, Any]) -> None:
    content["spec"]["listeners"][0]["port"] = 8080


def _gateway(admin: EpicClient) -> dict[str, Any]:
    (proxy,) = admin.get(f"{ACCOUNT}/proxies")["items"]
    return dict(proxy)


def test_removing_it_on_one_host_takes_nothing_from_the_other(
    admin: EpicClient, live_api: Any, tmp_path: Path, desired: Desire
) -> None:
    one, two = _host(tmp_path, "node1"), _host(tmp_path, "node2")
    one.reconcile(desired())
    two.reconcile(desired())
    assert _gateway(admin)["metadata"]["annotations"] == {SOURCES_ANNOTATION: "lab/node1,lab/node2"}
    shared = replace(desired(), slices=())
    gone = {o.address.collection: o.action for o in one.reconcile(Desired())}
    assert gone == {"routes": "left", "slices": "deleted", "proxies": "left"}
    assert [live_api.store.list(kind)[0].deleting for kind in (GWProxy, GWRoute)] == [False, False]
    assert one.reconcile(Desired()) == []
    two.expire()
    two.reconcile(shared)
    assert {o.action for o in two.reconcile(Desired())} == {"deleted"}
    assert not live_api.store.list(GWRoute) + live_api.store.list(GWEndpointSlice)


def test_the_first_hosts_content_counts_and_the_second_says_so_and_writes_nothing(
    admin: EpicClient, live_api: Any, tmp_path: Path, desired: Desire
) -> None:
    one, two = _host(tmp_path, "node1"), _host(tmp_path, "node2")
    one.reconcile(desired())
    revision = live_api.store.revision
    other = replace(desired(Gateway=_other_port), slices=(), routes=())
    for _ in range(2):
        two.expire()
        one.expire()
        (outcome,) = two.reconcile(other)
        assert (outcome.action, outcome.reason) == ("failed", "Conflict")
        assert failures([outcome])[0].startswith("Gateway shop/web: lab/node1 asks for it otherwise")
        assert one.reconcile(desired()) == []
    assert live_api.store.revision == revision
    # The second host's wish ends, and takes nothing along.
    assert [o.action for o in two.reconcile(Desired())] == ["left"]
    assert _gateway(admin)["spec"]["public-ports"][0]["port"] == 80


def test_who_comes_first_may_change_it_and_the_second_takes_over_when_the_first_has_gone(
    admin: EpicClient, tmp_path: Path, desired: Desire
) -> None:
    one, two = _host(tmp_path, "node1"), _host(tmp_path, "node2")
    one.reconcile(desired())
    two.reconcile(desired())
    one.expire()
    assert [o.action for o in one.reconcile(desired(Gateway=_other_port))] == ["configured"]
    two.expire()
    assert [o.reason for o in two.reconcile(desired())] == ["Conflict"]
    assert two.reconcile(desired(Gateway=_other_port)) == []
    one.reconcile(Desired())
    two.expire()
    two.reconcile(desired(Gateway=_other_port))
    assert [(o.object, o.action) for o in two.reconcile(desired())] == [("Gateway shop/web", "configured")]


def test_a_host_that_withdraws_looks_who_has_come_since(
    admin: EpicClient, tmp_path: Path, desired: Desire
) -> None:
    one, two = _host(tmp_path, "node1"), _host(tmp_path, "node2")
    one.reconcile(desired())
    # The first host has not heard of the second's claim when it withdraws.
    two.reconcile(desired())
    one.reconcile(Desired())
    assert _gateway(admin)["metadata"]["annotations"] == {SOURCES_ANNOTATION: "lab/node2"}


def test_what_no_host_claims_is_taken_over(admin: EpicClient, tmp_path: Path, desired: Desire) -> None:
    other = desired(Gateway=_other_port).proxies[0]
    admin.post(other.create_path, other.body)
    outcomes = {o.address.collection: o.action for o in _host(tmp_path, "node1").reconcile(desired())}
    assert outcomes["proxies"] == "configured"


@pytest.mark.parametrize("collection", ["proxies", "slices", "routes"])
def test_a_put_that_means_an_older_version_is_refused(
    admin: EpicClient, tmp_path: Path, desired: Desire, collection: Any
) -> None:
    _host(tmp_path, "node1").reconcile(desired())
    (item,) = getattr(desired(), collection)
    (key,) = item.body
    found = admin.get(item.address.path)[key]
    version = found["metadata"]["resourceVersion"]
    given = {key: {"metadata": {"resourceVersion": version}, "spec": item.spec}}
    admin.put(item.address.path, given)
    given[key]["metadata"]["resourceVersion"] = str(int(version) - 1)
    with pytest.raises(Conflict, match="has been changed since version"):
        admin.put(item.address.path, given)
    # What says nothing of versions and sources keeps the sources.
    after = admin.put(item.address.path, item.body)[key]
    assert after["metadata"]["annotations"] == found["metadata"]["annotations"]
