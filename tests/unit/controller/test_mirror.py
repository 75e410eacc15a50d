# SPDX-License-Identifier: Apache-2.0
"""The mirror's requests, and that what cannot be seen, or goes all at once, is not deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from counted_client import ACCOUNT, CountedClient, taken

from epic.client import EpicClient
from epic.controller.desired import Desired, EpicConnection, Item
from epic.controller.mirror import Mirror, MirrorSettings, failures
from epic.controller.objects import Problem, Unseen
from epic.controller.state import Place, StateFile

Desire = Callable[..., Desired]


def _mirror(tmp_path: Path, client: CountedClient, source: str = "lab/node1", **settings: Any) -> Mirror:
    state = StateFile(tmp_path / source.replace("/", "-") / "made.json")
    return Mirror(state, lambda _: client, MirrorSettings(source, **settings))


def _many(desired: Desired, count: int) -> Desired:
    """With so many slices more."""
    (first,) = desired.slices
    slices = []
    for number in range(count):
        ref = first.ref._replace(name=f"more{number}")
        client_ref = {**first.spec["clientRef"], "name": ref.name, "uid": ref.name}
        slices.append(replace(first, uid=ref.name, ref=ref, spec={**first.spec, "clientRef": client_ref}))
    return replace(desired, slices=(first, *slices))


def _moved(item: Item) -> Item:
    """A slice whose pod has another address."""
    (endpoint,) = item.spec["endpoints"]
    return replace(item, spec={**item.spec, "endpoints": [{**endpoint, "addresses": ["192.168.50.99"]}]})


def _actions(outcomes: Any) -> list[tuple[str, str]]:
    return [(outcome.object, outcome.action) for outcome in outcomes]


def test_what_the_server_ignores_is_said_until_the_object_is_another(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    mirror, wish = _mirror(tmp_path, client), desired()
    (route,) = wish.routes
    odd = replace(wish, routes=(replace(route, spec={**route.spec, "colour": "red"}),))
    for _ in range(2):
        (warned,) = [outcome for outcome in mirror.reconcile(odd) if outcome.action == "warned"]
        assert (warned.object, warned.reason) == ("HTTPRoute shop/web", "UnknownField")
        assert warned.message == 'unknown field "route.spec.colour"'
    known = Problem(route.source, str(route.ref), "UnknownField", "colour")
    assert "warned" not in dict(_actions(mirror.reconcile(replace(odd, problems=(known,))))).values()
    moved = {**route.spec["http"], "hostnames": ["moved.example.net"]}
    right = replace(wish, routes=(replace(route, spec={**route.spec, "http": moved}),))
    assert _actions(mirror.reconcile(right)) == [("HTTPRoute shop/web", "configured")]


def test_a_pass_lists_once_and_then_asks_for_nothing(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    mirror, wanted = _mirror(tmp_path, client), _many(desired(), 20)
    mirror.reconcile(wanted)
    assert sum(r.startswith("GET") for r in taken(client)) == 3
    mirror.reconcile(wanted)
    mirror.reconcile(_many(desired(), 20))
    assert taken(client) == []


def test_one_changed_object_costs_one_request(tmp_path: Path, client: CountedClient, desired: Desire) -> None:
    mirror, wanted = _mirror(tmp_path, client), _many(desired(), 20)
    mirror.reconcile(wanted)
    taken(client)
    changed = replace(wanted, slices=(*wanted.slices[:-1], _moved(wanted.slices[-1])))
    assert _actions(mirror.reconcile(changed)) == [("EndpointSlice shop/more19", "configured")]
    assert taken(client) == ["PUT /slices/more19"]
    mirror.reconcile(wanted := replace(changed, slices=changed.slices[:-1]))
    assert taken(client) == ["DELETE /slices/more19"]
    mirror.reconcile(wanted)
    assert taken(client) == []


def test_a_restart_costs_the_listing_alone(tmp_path: Path, client: CountedClient, desired: Desire) -> None:
    wanted = _many(desired(), 20)
    _mirror(tmp_path, client).reconcile(wanted)
    taken(client)
    assert _mirror(tmp_path, client).reconcile(wanted) == []
    assert taken(client) == ["GET /proxies", "GET /slices", "GET /routes"]


def test_what_others_took_away_or_changed_is_repaired_at_the_next_listing(
    tmp_path: Path, client: CountedClient, desired: Desire, admin: EpicClient
) -> None:
    mirror, wanted = _mirror(tmp_path, client), _many(desired(), 2)
    mirror.reconcile(wanted)
    admin.delete(wanted.slices[1].address.path)
    admin.put(wanted.slices[2].address.path, _moved(wanted.slices[2]).body)
    assert mirror.reconcile(wanted) == []
    mirror.expire()
    assert _actions(mirror.reconcile(wanted)) == [
        ("EndpointSlice shop/more0", "created"),
        ("EndpointSlice shop/more1", "configured"),
    ]


def test_what_is_not_as_it_was_seen_is_looked_at_and_written_in_the_same_pass(
    tmp_path: Path, client: CountedClient, desired: Desire, admin: EpicClient
) -> None:
    mirror, wanted = _mirror(tmp_path, client), _many(desired(), 1)
    mirror.reconcile(wanted)
    admin.delete(wanted.slices[1].address.path)
    new = _many(desired(), 2)
    admin.post(new.slices[2].create_path, new.slices[2].body)
    taken(client)
    changed = replace(new, slices=(new.slices[0], _moved(new.slices[1]), new.slices[2]))
    assert _actions(mirror.reconcile(changed)) == [("EndpointSlice shop/more0", "created")]
    assert taken(client) == [
        "PUT /slices/more0",
        "GET /slices/more0",
        "POST /slices",
        "POST /slices",
        "GET /slices/more1",
    ]


def test_an_account_that_cannot_be_listed_loses_nothing(
    tmp_path: Path, client: CountedClient, desired: Desire, admin: EpicClient
) -> None:
    wanted = desired()
    _mirror(tmp_path, client).reconcile(wanted)
    admin.delete(f"{ACCOUNT}/users/shop")
    outcomes = _mirror(tmp_path, client).reconcile(replace(wanted, routes=()))
    assert [o.action for o in outcomes] == ["failed"] * 3
    assert len(failures(outcomes)) == 1
    assert "refuses user 'shop'" in failures(outcomes)[0]
    admin.post(f"{ACCOUNT}/users", {"user": {"name": "shop", "password": "shop-password"}})
    assert len(admin.get(f"{ACCOUNT}/routes")["items"]) == 1
    taken(client)
    outcomes = _mirror(tmp_path, client).reconcile(replace(wanted, routes=()))
    assert _actions(outcomes) == [("HTTPRoute shop/web", "deleted")]
    assert [r for r in taken(client) if not r.startswith("GET")] == [f"DELETE /routes/{wanted.routes[0].uid}"]


def test_objects_of_an_unreadable_file_stay_and_those_of_others_go(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    wanted = _many(desired(), 4)
    other = tuple(replace(item, source="other.yaml") for item in wanted.slices[3:])
    mirror = _mirror(tmp_path, client)
    mirror.reconcile(replace(wanted, slices=(*wanted.slices[:3], *other)))
    left = replace(wanted, slices=wanted.slices[:2])
    gone = mirror.reconcile(left, Unseen(files=frozenset({"other.yaml"})))
    assert _actions(gone) == [("EndpointSlice shop/more1", "deleted")]
    gone = mirror.reconcile(left, Unseen(refs=frozenset({other[0].ref})))
    assert _actions(gone) == [("EndpointSlice shop/more3", "deleted")]


def test_more_than_half_at_once_is_held_until_it_is_confirmed(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    mirror, wanted = _mirror(tmp_path, client), _many(desired(), 17)
    mirror.reconcile(wanted)
    taken(client)
    for _ in range(2):
        assert mirror.reconcile(Desired()) == []
    assert mirror.held.startswith("20 of 20 objects are there no more (")
    assert taken(client) == []
    assert len(mirror.reconcile(replace(wanted, slices=wanted.slices[:8]))) == 10
    assert mirror.held == ""
    assert len(mirror.reconcile(Desired(), confirmed=True)) == 10
    assert mirror.reconcile(Desired()) == []


def test_a_setting_lets_all_go_at_once(tmp_path: Path, client: CountedClient, desired: Desire) -> None:
    mirror = _mirror(tmp_path, client, hold_from=0)
    mirror.reconcile(_many(desired(), 17), place=Place(1, 1))
    assert len(mirror.reconcile(Desired(), place=Place(1, 2))) == 20


def test_another_directory_in_its_place_takes_nothing_away(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    mounted, below = Place(1, 2), Place(0, 9)
    wanted = desired()
    _mirror(tmp_path, client).reconcile(wanted, place=mounted)
    mirror = _mirror(tmp_path, client)
    assert mirror.reconcile(Desired(), place=below) == []
    assert "the directory is another one" in mirror.held
    mirror.reconcile(wanted, place=below)
    assert mirror.held == ""
    assert len(mirror.reconcile(Desired(), place=below)) == 3


def test_a_server_that_answers_no_write_is_left_after_three(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    client.lost = frozenset({"POST"})
    outcomes = _mirror(tmp_path, client).reconcile(_many(desired(), 20))
    assert len(outcomes) == 23
    assert sum(request.startswith("POST") for request in taken(client)) == 3


def test_an_object_that_is_refused_stops_no_other(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    wanted = _many(desired(), 3)
    bad = replace(wanted.slices[1], spec={**wanted.slices[1].spec, "addressType": "odd"})
    mirror = _mirror(tmp_path, client)
    outcomes = mirror.reconcile(replace(wanted, slices=(wanted.slices[0], bad, *wanted.slices[2:])))
    assert [(o.object, o.reason) for o in outcomes if o.action == "failed"] == [
        ("EndpointSlice shop/more0", "Invalid")
    ]
    assert sum(outcome.action == "created" for outcome in outcomes) == 5


def test_new_credentials_are_used_for_what_was_made_earlier(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    mirror, wanted = _mirror(tmp_path, client), desired()
    mirror.reconcile(wanted)
    (old,) = wanted.connections
    new = EpicConnection(old.server, old.account, old.username, "another-password", old.cluster)
    mirror.reconcile(replace(wanted, connections=(new,)))
    assert list(mirror.state.logins.values()) == [new]


def test_a_listing_that_fails_later_takes_nothing_from_what_is_known(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    now = [0.0]
    state = StateFile(tmp_path / "made.json")
    mirror = Mirror(state, lambda _: client, MirrorSettings("lab/node1"), clock=lambda: now[0])
    wanted = _many(desired(), 5)
    mirror.reconcile(wanted)
    now[0] = 10_000
    taken(client)
    client.lost = frozenset({"GET"})
    changed = replace(wanted, slices=(*wanted.slices[:-1], _moved(wanted.slices[-1])))
    outcomes = mirror.reconcile(changed)
    assert _actions(outcomes) == [
        ("account shop", "failed"),
        ("account shop", "failed"),
        ("account shop", "failed"),
        ("EndpointSlice shop/more4", "configured"),
    ]
    client.lost = frozenset()
    taken(client)
    assert mirror.reconcile(changed) == []
    assert taken(client) == []


def test_everything_is_listed_again_by_and_by_and_gateways_more_often(
    tmp_path: Path, client: CountedClient, desired: Desire
) -> None:
    now = [0.0]
    state = StateFile(tmp_path / "made.json")
    settings = MirrorSettings("lab/node1", list_seconds=600, gateway_list_seconds=30)
    mirror, wanted = Mirror(state, lambda _: client, settings, clock=lambda: now[0]), desired()
    mirror.reconcile(wanted)
    taken(client)
    now[0] = 36.1
    mirror.reconcile(wanted)
    assert taken(client) == ["GET /proxies"]
    now[0] = 720.1
    mirror.reconcile(wanted)
    assert taken(client) == ["GET /proxies", "GET /slices", "GET /routes"]
