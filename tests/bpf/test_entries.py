# SPDX-License-Identifier: Apache-2.0
"""The maps as the agent sees them: tunnels, endpoints, traffic."""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from planes import ENDPOINT6, INSIDE, INSIDE6, INSTANCE, PUBLIC, UNDERLAY, tunnel

from epic.bpf.dataplane import Address, Dataplane, Endpoint, Pair, TunnelCounters
from epic.bpf.programs.syscalls import possible_cpus
from epic.bpf.tables.maps import Map
from epic.bpf.tables.records import ADDRESS, ENDPOINT, ENDPOINT_KEY, ID, REAL_KEY, TRAFFIC, unpack_address
from epic.bpf.tables.tunnel_table import MAX_TUNNELS
from epic.errors import Invalid, NotFound

pytestmark = pytest.mark.root

MANY = 10_000
MAX_ENDPOINTS = 262144


def test_thousands_of_entries_are_listed(plane: Dataplane) -> None:
    plane.set_tunnel(tunnel(7))
    pairs: dict[Pair, Endpoint] = {
        (INSIDE, IPv4Address(0x0A000000 + number)): Endpoint(7) for number in range(1, MANY)
    }
    pairs |= {
        (INSIDE6, ENDPOINT6 + number): Endpoint(7, real=ENDPOINT6 - number - 1) for number in range(MANY)
    }
    plane.set_endpoints(pairs)
    assert plane.endpoints() == pairs
    plane.delete_endpoints(pairs)
    assert plane.endpoints() == {}


def test_many_tunnels_and_endpoints_are_programmed_in_seconds(plane: Dataplane) -> None:
    begun = time.monotonic()
    for number in range(1, MANY + 1):
        inside = {"inside": INSIDE + number, "inside6": INSIDE6 + number}
        plane.set_tunnel(tunnel(number, **inside))
    endpoints: dict[Pair, Endpoint] = {
        (INSIDE + number % MANY + 1, IPv4Address(0x0A000000 + number)): Endpoint(number % MANY + 1)
        for number in range(10 * MANY)
    }
    plane.set_endpoints(endpoints)
    assert time.monotonic() - begun < 20
    assert len(plane.tunnel_ids()) == MANY
    assert len(plane.endpoints()) == 10 * MANY


def test_what_finds_no_room_leaves_no_name_behind(plane: Dataplane, bpffs: Path) -> None:
    """Part of a batch may have been stored; only what was keeps its name."""
    plane.set_tunnel(tunnel(7))
    fill(bpffs, MAX_ENDPOINTS - 2)
    mapped = {
        (INSIDE, PUBLIC + number): Endpoint(7, real=IPv4Address(0x0A000000 + number)) for number in range(5)
    }
    plane.set_endpoints({(INSIDE, PUBLIC): Endpoint(7, real=UNDERLAY)})
    with pytest.raises(OSError, match="too long"):
        plane.set_endpoints(mapped)
    stored = plane.endpoints(mapped)
    assert 0 < len(stored) < len(mapped)
    assert names(bpffs) == {(endpoint.real, pair[1]) for pair, endpoint in stored.items()}
    plane.delete_endpoints(mapped)
    assert names(bpffs) == set()


def fill(bpffs: Path, count: int) -> None:
    """Endpoints of nobody."""
    (pin,) = (bpffs / "plane").glob("*/maps/endpoints")
    opened = Map(pin, ENDPOINT_KEY.size, ENDPOINT.size)
    opened.set_all({bytes(4) + ID.pack(number): bytes(ENDPOINT.size) for number in range(count)})
    opened.close()


def names(bpffs: Path) -> set[tuple[Address | None, Address | None]]:
    """Real address and name of each endpoint that has one."""
    (pin,) = (bpffs / "plane").glob("*/maps/mapped")
    opened = Map(pin, REAL_KEY.size, ADDRESS.size)
    found = {(unpack_address(REAL_KEY.unpack(key)[1]), unpack_address(name)) for key, name in opened.items()}
    opened.close()
    return found


def test_an_endpoint_needs_its_tunnel(plane: Dataplane) -> None:
    with pytest.raises(NotFound, match="there is no tunnel 7"):
        plane.set_endpoint(INSIDE, PUBLIC, Endpoint(7))


def test_endpoints_of_a_tunnel_that_was_made_anew_are_not_there(plane: Dataplane) -> None:
    """So that whoever compares what is there with what should be sets them again."""
    plane.set_tunnel(tunnel(7))
    plane.set_endpoint(INSIDE, PUBLIC, Endpoint(7))
    plane.delete_tunnel(7)
    plane.set_tunnel(tunnel(7))
    assert plane.endpoints() == {}
    plane.set_endpoint(INSIDE, PUBLIC, Endpoint(7))
    assert plane.endpoints() == {(INSIDE, PUBLIC): Endpoint(7)}


def test_what_an_endpoint_is_comes_back_as_it_was_set(plane: Dataplane) -> None:
    endpoints: dict[Pair, Endpoint] = {
        (INSIDE, PUBLIC): Endpoint(7, real=UNDERLAY),
        (INSIDE, UNDERLAY): Endpoint(7, interface=INSTANCE),
        (INSIDE6, ENDPOINT6): Endpoint(7, real=ENDPOINT6 + 1),
    }
    plane.set_tunnel(tunnel(7))
    plane.set_endpoints(endpoints)
    assert plane.endpoints() == endpoints


def test_addresses_of_an_endpoint_are_of_one_family(plane: Dataplane) -> None:
    plane.set_tunnel(tunnel(7))
    mixed: dict[Pair, Address | None] = {
        (INSIDE, ENDPOINT6): None,
        (INSIDE6, PUBLIC): None,
        (INSIDE, PUBLIC): ENDPOINT6,
    }
    for (inside, endpoint), real in mixed.items():
        with pytest.raises(Invalid, match="one family"):
            plane.set_endpoint(inside, endpoint, Endpoint(7, real=real))


def test_tunnels_that_cannot_be_are_refused(plane: Dataplane) -> None:
    for changes, message in (
        ({"lanes": 0}, "0 lanes"),
        ({"lanes": 5}, "5 lanes"),
        ({"remote": ENDPOINT6}, "different families"),
        ({"active": 1}, "must hold a key"),
        ({"keys": (bytes(15), None)}, "15 bytes"),
        ({"id_": 0}, "ids are 1 and higher"),
    ):
        with pytest.raises(Invalid, match=message):
            plane.set_tunnel(tunnel(**({"id_": 7} | changes)))
    assert plane.tunnel_ids() == set()


def test_deleting_what_is_not_there_is_no_error(plane: Dataplane) -> None:
    plane.delete_tunnel(99)
    plane.delete_endpoint(INSIDE, PUBLIC)
    plane.detach_instance("epgffffffff")
    assert plane.peer(99) is None
    assert plane.tunnel_counters() == {}


def test_traffic_is_read_of_each_tunnel_wherever_it_lies(plane: Dataplane, bpffs: Path) -> None:
    for id_ in range(1, 601):
        plane.set_tunnel(tunnel(id_))
    (maps,) = (bpffs / "plane").glob("*/maps")
    cpus = possible_cpus()
    traffic, slots = Map(maps / "traffic", 4, TRAFFIC.size, cpus), Map(maps / "slots", 4, 4)
    for id_ in range(1, 601):
        slot = slots.get(ID.pack(id_))
        assert slot is not None
        traffic.set(slot, TRAFFIC.pack(id_, 2, 3, 4) * cpus)
    traffic.close()
    slots.close()
    for id_ in range(1, 601, 3):
        plane.delete_tunnel(id_)
    expected = {
        id_: TunnelCounters(id_ * cpus, 2 * cpus, 3 * cpus, 4 * cpus) for id_ in range(1, 601) if id_ % 3 != 1
    }
    assert plane.tunnel_counters() == expected
    assert {id_: counters for id_, counters, _ in plane.observed()} == expected
    plane.set_tunnel(tunnel(1))
    assert plane.tunnel_counters() == expected | {1: TunnelCounters(0, 0, 0, 0)}


def test_the_last_place_for_a_tunnel_is_read_too(plane: Dataplane) -> None:
    # Places are used one after the other before one is used again.
    for id_ in range(1, MAX_TUNNELS):
        plane.set_tunnel(tunnel(id_))
        plane.delete_tunnel(id_)
    plane.set_tunnel(tunnel(7))
    assert plane.tunnel_counters() == {7: TunnelCounters(0, 0, 0, 0)}
    assert list(plane.observed()) == [(7, TunnelCounters(0, 0, 0, 0), ())]
