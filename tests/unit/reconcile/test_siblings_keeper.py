# SPDX-License-Identifier: Apache-2.0
"""Leading siblings on: who waits no more, whom an upgrade finds serving, what it costs, what fails alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from damage import wait_until_unreadable, write_newer
from siblings_site import GATEWAY, SERVING, Clock, Site

from epic.api.replies import shown
from epic.model import base
from epic.model.base import Resource
from epic.model.instances import ProxyInstance
from epic.model.resources import GWProxy, Node
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.reconcile import siblings as siblings_room
from epic.reconcile import siblings_keeper as keeper_room
from epic.reconcile.siblings import forget_node, release_node, relist_gateway


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    clock = Clock()
    for module in (base, siblings_room, keeper_room):
        monkeypatch.setattr(module, "now", clock)
    site = Site(tmp_path, clock)
    yield site
    site.store.close()


@pytest.fixture
def pair(site: Site) -> Site:
    """A gateway of two instances, new."""
    site.add_node("e1")
    site.add_node("e2")
    site.create()
    site.work()
    return site


def test_a_new_gateways_instances_wait_until_both_nodes_have_said_that_they_have_the_list(pair: Site) -> None:
    assert (pair.held, pair.condition) == ({"e1", "e2"}, ("Unknown", "WaitsForSiblings"))
    pair.hear("e1")
    assert pair.held == {"e1", "e2"}
    pair.hear("e2")
    assert (pair.held, pair.condition) == (set(), ("True", "AllSiblingsKnow"))


def test_the_gateway_is_written_once_when_it_is_made_and_once_when_nobody_waits_any_more(pair: Site) -> None:
    before = pair.proxy.metadata.resource_version
    pair.work()
    pair.hear("e1")
    assert pair.proxy.metadata.resource_version == before
    pair.hear("e2")
    written = pair.store.revision
    pair.work()
    pair.pass_time(5)
    assert (pair.store.revision, written) == (before + 1, before + 1)


def test_nobody_waits_for_longer_than_ten_seconds_and_who_is_late_is_told_once(
    pair: Site, caplog: pytest.LogCaptureFixture
) -> None:
    pair.hear("e1")
    pair.pass_time(9)
    assert pair.held == {"e1", "e2"}
    pair.pass_time(1)
    assert (pair.held, pair.condition) == (set(), ("False", "SiblingsLate"))
    pair.pass_time(60)
    assert caplog.messages == ["siblings of a.u1: e2: without the newest list"]
    pair.hear("e2")
    pair.pass_time(5)
    assert pair.condition == ("True", "AllSiblingsKnow")


def test_who_is_alone_waits_for_nobody(site: Site) -> None:
    site.add_node("e1")
    site.create()
    site.work()
    assert (site.spec.nodes, site.held, site.condition) == (("e1",), set(), ("True", "AllSiblingsKnow"))


def test_who_waits_no_more_does_not_wait_again_after_a_restart(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.restart()
    pair.work()
    assert pair.held == set()


def test_after_a_restart_nothing_is_written_until_nodes_say_something_else(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.pass_time(100)
    pair.hear("e1")
    pair.hear("e2")
    written = pair.store.revision
    pair.restart()
    pair.work()
    pair.pass_time(5)
    pair.hear("e1")
    pair.hear("e2")
    pair.pass_time(5)
    assert (pair.store.revision, pair.condition) == (written, ("True", "AllSiblingsKnow"))


def test_a_node_that_says_nothing_after_a_restart_is_late_after_a_while(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.restart()
    pair.work()
    pair.hear("e1")
    pair.pass_time(15)
    assert pair.condition == ("False", "SiblingsLate")


def test_who_waits_still_waits_after_a_restart_until_it_is_told(pair: Site) -> None:
    pair.restart()
    pair.work()
    assert pair.held == {"e1", "e2"}
    pair.hear("e1")
    pair.hear("e2")
    assert pair.held == set()


def test_a_newcomer_is_held_while_the_others_serve_on(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.change_instance("e1", **SERVING)
    pair.change_instance("e2", **SERVING)
    pair.add_node("e3")
    with pair.store.transaction() as transaction:
        proxy = transaction.get(GWProxy, "a", "u1")
        new = ProxyInstance.model_validate({"node": "e3", "inside-address": "100.64.0.9"})
        status = proxy.status.model_copy(update={"instances": (*proxy.status.instances, new)})
        proxy = proxy.model_copy(update={"status": status})
        relist_gateway(transaction, proxy, {n.name: n for n in pair.store.list(Node)})
    pair.work()
    assert pair.held == {"e3"}
    for node in ("e1", "e2", "e3"):
        assert pair.held == {"e3"}
        pair.hear(node)
    assert pair.held == set()


def test_who_comes_back_from_maintenance_is_held_until_all_know_it_again(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.change_instance("e1", **SERVING)
    pair.change_instance("e2", **{**SERVING, "phase": "Draining"})
    assert [(s.node, s.draining) for s in pair.spec.siblings] == [("e1", False), ("e2", True)]
    pair.change_instance("e2", phase="Withdrawn", announced=False, drained=True)
    pair.work()
    pair.hear("e1")
    assert pair.spec.nodes == ("e1",)
    pair.change_instance("e2", phase="Prepared")
    assert (pair.spec.nodes, pair.held) == (("e1", "e2"), {"e2"})


@pytest.fixture
def parting(pair: Site) -> Site:
    """The same, of which e2 has come to its end."""
    for node in ("e1", "e2"):
        pair.hear(node)
        pair.change_instance(node, **SERVING)
    pair.change_instance("e2", phase="Withdrawn", announced=False, drained=True)
    pair.work()
    return pair


def test_who_leaves_has_the_list_until_nobody_passes_anything_on_to_it(parting: Site) -> None:
    assert (parting.spec.nodes, parting.spec.staying, parting.listed) == (("e1", "e2"), ("e1",), {"e1", "e2"})
    parting.hear("e2")
    assert parting.spec.nodes == ("e1", "e2")
    parting.hear("e1")
    assert (parting.spec.nodes, parting.listed) == (("e1",), {"e1"})


def test_who_leaves_waits_for_a_stopped_agent_until_its_node_is_removed_by_force(parting: Site) -> None:
    parting.pass_time(100_000)
    assert parting.listed == {"e1", "e2"}
    parting.change_node("e1", lost=True)
    parting.work()
    assert parting.spec.nodes == ()


def blame(site: Site, *silent: str, seconds: int) -> None:
    """For so long e2 says every five seconds which addresses do not answer it."""
    version = site.spec.version
    for _ in range(seconds // 5):
        site.pass_time(5)
        site.applied.take("e2", {GATEWAY: version}, silent)
    site.pass_time(5)


def test_who_leaves_waits_until_a_nodes_programs_have_not_answered_for_two_minutes(parting: Site) -> None:
    blame(parting, "192.0.2.1", seconds=115)
    assert parting.listed == {"e1", "e2"}
    blame(parting, "192.0.2.1", seconds=15)
    assert parting.listed == {"e1"}


def test_who_leaves_is_not_let_go_for_a_moment_in_which_a_living_node_did_not_answer(parting: Site) -> None:
    blame(parting, seconds=180)
    blame(parting, "192.0.2.1", seconds=5)
    assert parting.listed == {"e1", "e2"}
    blame(parting, seconds=10)
    blame(parting, "192.0.2.1", seconds=100)
    assert parting.listed == {"e1", "e2"}


def test_who_leaves_names_the_nodes_whose_agents_it_waits_for_once_that_takes_long(parting: Site) -> None:
    parting.hear("e2")
    assert parting.awaits == {}
    parting.pass_time(10)
    assert parting.awaits == {"e2": ("e1",)}
    written = parting.store.revision
    parting.pass_time(60)
    assert parting.store.revision == written
    parting.hear("e1")
    assert parting.awaits == {}


def test_who_comes_back_waits_for_no_agent_any_more(parting: Site) -> None:
    parting.hear("e2")
    parting.pass_time(10)
    parting.change_instance("e2", phase="Prepared")
    assert parting.awaits == {}


def test_who_comes_back_before_it_is_forgotten_is_held_as_any_newcomer(parting: Site) -> None:
    parting.hear("e2")
    parting.change_instance("e2", phase="Prepared")
    parting.work()
    assert (parting.spec.staying, parting.held) == (("e1", "e2"), {"e2"})
    parting.hear("e2")
    assert parting.held == {"e2"}, "e1 may have learned something of its earlier life"
    parting.hear("e1")
    assert parting.held == set()


def test_a_drain_that_is_taken_back_lets_nobody_go_before_its_siblings_know_it(pair: Site) -> None:
    pair.change_instance("e2", phase="Draining")
    pair.work()
    pair.change_instance("e2", phase="Prepared")
    pair.work()
    assert pair.held == {"e1", "e2"}


def test_gateways_serve_without_a_list_and_get_one_when_their_nodes_can(site: Site) -> None:
    site.add_node("e1", second_chance=False)
    site.add_node("e2", second_chance=False)
    site.create()
    for node in ("e1", "e2"):
        site.change_instance(node, **SERVING)
    site.work()
    assert site.store.find(Siblings, "a", "u1") is None
    assert (site.held, site.condition) == (set(), ("False", "NotOnAllNodes"))
    for node in ("e1", "e2"):
        site.change_node(node, second_chance=True)
        site.work()
        assert site.held == set()
    assert site.spec.nodes == ("e1", "e2")


def test_a_node_on_which_it_is_switched_off_leaves_the_lists(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.change_node("e2", second_chance=False)
    pair.work()
    assert (pair.spec.nodes, pair.held, pair.condition) == (("e1",), set(), ("False", "NotOnAllNodes"))


def test_a_lost_node_is_out_of_all_lists_at_once_and_its_keys_are_worth_nothing(pair: Site) -> None:
    before = {key.secret for key in pair.spec.keys}
    with pair.store.transaction() as transaction:
        node = transaction.get(Node, "", "e1")
        status = node.status.model_copy(update={"lost": True})
        transaction.update(node.model_copy(update={"status": status}))
        forget_node(transaction, "e1")
    assert pair.spec.nodes == ("e2",)
    assert not before & {key.secret for key in pair.spec.keys}


def remove(site: Site, name: str) -> None:
    """As when a node has said that nothing is left there."""
    with site.store.transaction() as transaction:
        release_node(transaction, name)
        transaction.delete(Node, "", name)
        forget_node(transaction, name)
    site.work()


def test_keys_that_a_node_knows_that_was_removed_as_planned_go_without_a_gap(parting: Site) -> None:
    parting.hear("e1")
    remove(parting, "e2")
    assert ([key.epoch for key in parting.spec.keys], parting.spec.signing_epoch) == ([1, 2], 1)
    for _ in range(20):
        parting.hear("e1")
        parting.pass_time(5)
    assert ([key.epoch for key in parting.spec.keys], parting.spec.former) == ([2], ())


def test_keys_are_rotated_and_of_one_who_left_nothing_is_left_after_a_while(pair: Site) -> None:
    pair.hear("e1")
    pair.hear("e2")
    pair.change_instance("e2", phase="Withdrawn", drained=True)
    for _ in range(20):
        pair.work()
        pair.hear("e1")
        pair.pass_time(5)
    assert ([key.epoch for key in pair.spec.keys], pair.spec.former) == ([2], ())


def test_a_gateway_is_led_on_without_listing_anything(pair: Site) -> None:
    pair.store.lists = 0
    pair.hear("e1")
    pair.hear("e2")
    pair.change_node("e2", second_chance=False)
    pair.work()
    pair.pass_time(700)
    assert pair.store.lists == 0


def test_while_the_disk_is_full_nothing_is_lost_and_it_goes_on_when_there_is_room(pair: Site) -> None:
    pair.hear("e1")
    pair.store.full = True
    pair.hear("e2")
    assert pair.held == {"e1", "e2"}
    pair.store.full = False
    pair.pass_time(2)
    assert pair.held == set()


def test_what_the_api_shows_of_a_gateway_holds_no_key(pair: Site) -> None:
    text = str(shown(pair.proxy))
    assert all(key.secret.get_secret_value() not in text for key in pair.spec.keys)


@pytest.mark.parametrize("kind", [GWProxy, Siblings])
@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
def test_a_gateway_or_list_that_cannot_be_read_keeps_no_other_from_being_led_on(
    pair: Site, kind: type[Resource], restarted: bool
) -> None:
    other = GatewayId("a", "u2")
    pair.create("u2")
    pair.work()
    write_newer(pair.store, pair.store.get(kind, "a", "u1"))
    wait_until_unreadable(pair.store, kind)
    if restarted:
        pair.restart()
    version = pair.store.get(Siblings, "a", "u2").spec.version
    for node in ("e1", "e2"):
        pair.keeper.hear(pair.applied.take(node, {GATEWAY: "another", other: version}))
        pair.work()
    pair.pass_time(5)
    assert not [i.node for i in pair.store.get(GWProxy, "a", "u2").status.instances if i.hold]


def test_a_node_that_cannot_be_read_stays_in_lists_with_the_address_that_it_has_there(pair: Site) -> None:
    for node in ("e1", "e2"):
        pair.hear(node)
    before = pair.spec
    write_newer(pair.store, pair.store.get(Node, "", "e2"))
    wait_until_unreadable(pair.store, Node)
    for _ in range(3):
        pair.change_instance("e1", reason="looked at")
        pair.pass_time(20)
        assert (pair.spec.siblings, pair.spec.keys, pair.spec.former) == (before.siblings, before.keys, ())
    with pair.store.transaction() as transaction:
        transaction.delete(Node, "", "e2")
        forget_node(transaction, "e2")
    assert pair.spec.nodes == ("e1",)
