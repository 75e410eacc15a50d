"""Loading, attaching and the maps as the agent sees them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from namespaces import Namespace

from epic.bpf.dataplane import Address, Dataplane, Endpoint, Pair, Tunnel, TunnelCounters
from epic.bpf.maps import Map
from epic.bpf.records import ID, TRAFFIC
from epic.bpf.syscalls import possible_cpus
from epic.bpf.tunnel_table import MAX_TUNNELS
from epic.errors import Invalid, NotFound, Unavailable

pytestmark = pytest.mark.root

INSIDE, PUBLIC, UNDERLAY = map(IPv4Address, ("100.64.0.1", "203.0.113.1", "172.30.2.2"))
INSIDE6, ENDPOINT6 = IPv6Address("fd65::1"), IPv6Address("fd00::1")
INSTANCE = "epg64400001"
MANY = 10_000


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    created = Namespace()
    created.run(
        "ip link add up0 type veth peer name far0",
        f"ip link add {INSTANCE} type veth peer name peer0",
        "ip addr add 172.30.2.2/24 dev up0",
    )
    with created:
        yield created
    created.close()


@pytest.fixture
def plane(namespace: Namespace, bpffs: Path, object_file: Path) -> Iterator[Dataplane]:
    loaded = Dataplane(bpffs / "plane", object_file)
    loaded.load()
    yield loaded
    loaded.unload()


def tunnel(id_: int, **changes: Any) -> Tunnel:
    """A workload node's end."""
    fields: dict[str, Any] = {
        "id": id_,
        "service": 3,
        "inside": INSIDE,
        "inside6": INSIDE6,
        "local": UNDERLAY,
        "remote": None,
        "remote_port": 6080,
        "underlay": "up0",
        "interface": None,
        "keys": (bytes(16), None),
        "active": 0,
    }
    return Tunnel(**(fields | changes))


def filters(namespace: Namespace, interface: str) -> str:
    hooks = ("ingress", "egress")
    return "".join(namespace.run(f"tc filter show dev {interface} {hook}") for hook in hooks)


def test_load_and_attach_again_changes_nothing(plane: Dataplane, namespace: Namespace) -> None:
    def bring_up() -> str:
        plane.load()
        plane.attach_underlay("up0", "gateway")
        plane.attach_instance(INSTANCE, INSIDE, INSIDE6, PUBLIC)
        return filters(namespace, "up0") + filters(namespace, INSTANCE)

    first = bring_up()
    assert first.count("direct-action") == 2
    assert bring_up() == first


def test_another_process_sees_the_same_state(plane: Dataplane, bpffs: Path, object_file: Path) -> None:
    plane.set_tunnel(tunnel(7))
    plane.set_endpoint(INSIDE, PUBLIC, Endpoint(7))
    other = Dataplane(bpffs / "plane", object_file)
    assert (other.tunnel_ids(), other.endpoints()) == ({7}, {(INSIDE, PUBLIC): Endpoint(7)})


def test_a_new_version_keeps_the_state_and_replaces_the_programs(
    plane: Dataplane, namespace: Namespace, bpffs: Path, object_file: Path, tmp_path: Path
) -> None:
    plane.attach_underlay("up0", "workload")
    plane.set_tunnel(tunnel(7))
    before = filters(namespace, "up0")
    changed = new_version(object_file, tmp_path)
    newer = Dataplane(bpffs / "plane", changed)
    newer.load()
    assert newer.tunnel_ids() == {7}
    after = filters(namespace, "up0")
    assert after != before
    assert after.count("direct-action") == before.count("direct-action") == 2
    assert len(list((bpffs / "plane").iterdir())) == 1


def test_a_map_of_another_shape_is_begun_anew(
    plane: Dataplane, bpffs: Path, object_file: Path, tmp_path: Path
) -> None:
    plane.set_tunnel(tunnel(7))
    plane.set_tunnel(tunnel(8, inside=INSIDE + 1, inside6=None))
    plane.set_endpoint(INSIDE, PUBLIC, Endpoint(7))
    (pin,) = (bpffs / "plane").glob("*/maps/tunnels")
    pin.unlink()
    create = f"bpftool map create {pin} type hash key 4 value 8 entries 10 name tunnels"
    subprocess.run(create.split(), check=True)
    newer = Dataplane(bpffs / "plane", new_version(object_file, tmp_path))
    newer.load()
    assert newer.due
    assert (newer.tunnel_ids(), newer.endpoints()) == ({7, 8}, {(INSIDE, PUBLIC): Endpoint(7)})
    newer.delete_tunnel(8)
    newer.set_tunnel(tunnel(7))
    newer.take_over()
    assert not newer.due
    assert newer.tunnel_ids() == {7}
    assert len(list((bpffs / "plane").iterdir())) == 1


def test_the_file_of_programs_may_be_replaced_while_they_run(
    namespace: Namespace, bpffs: Path, object_file: Path, tmp_path: Path
) -> None:
    installed = new_version(object_file, tmp_path)
    plane = Dataplane(bpffs / "replaced", installed)
    plane.load()
    installed.write_bytes(object_file.read_bytes())
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, PUBLIC)
    assert not plane.due
    plane.unload()


def test_half_a_load_is_done_again(plane: Dataplane, bpffs: Path) -> None:
    (pin,) = (bpffs / "plane").glob("*/programs/instance_ingress")
    pin.unlink()
    plane.load()
    assert pin.exists()


def test_the_role_of_an_underlay_can_change(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_underlay("up0", "workload")
    assert "epic_workload_underlay_egress" in filters(namespace, "up0")
    plane.attach_underlay("up0", "gateway")
    assert filters(namespace, "up0").count("direct-action") == 1


def test_an_instance_whose_interface_is_gone_can_be_detached(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, PUBLIC)
    namespace.run(f"ip link del {INSTANCE}")
    plane.detach_instance(INSTANCE)
    plane.detach_instance(INSTANCE)
    assert plane.instances() == set()


def test_a_recreated_interface_takes_the_place_of_the_old_one(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, PUBLIC)
    namespace.run(f"ip link del {INSTANCE}", f"ip link add {INSTANCE} type veth peer name peer0")
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, PUBLIC)
    plane.detach_instance(INSTANCE)
    assert "clsact" not in namespace.run(f"tc qdisc show dev {INSTANCE}")


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


def test_an_underlay_has_all_the_addresses_of_its_interface(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    def held() -> set[bytes]:
        (pin,) = (bpffs / "plane").glob("*/maps/locals")
        opened = Map(pin, 16, 4)
        try:
            return {key for key, _ in opened.items()}
        finally:
            opened.close()

    mapped = bytes(10) + b"\xff\xff"
    second, sixth = IPv4Address("172.30.2.3"), IPv6Address("2001:db8::1")
    namespace.sysctl("ipv6/conf/up0/disable_ipv6", 0)
    namespace.run(f"ip addr add {second}/32 dev up0", f"ip addr add {sixth}/128 dev up0 nodad")
    plane.attach_underlay("up0", "gateway")
    assert held() >= {mapped + UNDERLAY.packed, mapped + second.packed, sixth.packed}
    assert not {mapped + IPv4Address("127.0.0.1").packed, IPv6Address("::1").packed} & held()
    namespace.run(f"ip addr del {second}/32 dev up0")
    plane.attach_underlay("up0", "gateway")
    assert mapped + second.packed not in held()
    plane.set_tunnel(tunnel(7, local=PUBLIC))
    plane.attach_underlay("up0", "gateway")
    assert mapped + PUBLIC.packed in held()
    plane.delete_tunnel(7)
    plane.detach_underlay("up0")
    assert held() <= {mapped + PUBLIC.packed}


def test_addresses_of_the_loopback_interface_are_underlay_addresses_too(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    router_id = IPv4Address("10.255.0.1")
    namespace.run(f"ip addr add {router_id}/32 dev lo")
    plane.attach_underlay("up0", "gateway")
    (pin,) = (bpffs / "plane").glob("*/maps/locals")
    locals_ = Map(pin, 16, 4)
    try:
        assert locals_.get(bytes(10) + b"\xff\xff" + router_id.packed) is not None
    finally:
        locals_.close()


def test_a_map_of_another_shape_is_not_opened(plane: Dataplane, bpffs: Path) -> None:
    (pin,) = (bpffs / "plane").glob("*/maps/locals")
    with pytest.raises(Unavailable, match=r"entries of \(16, 4\) bytes, not \(4, 4\)"):
        Map(pin, 4, 4)


def test_several_underlays_are_left_one_by_one(plane: Dataplane, namespace: Namespace) -> None:
    namespace.run("ip link add up1 type veth peer name far1")
    for name in ("up0", "up1"):
        plane.attach_underlay(name, "workload")
    plane.detach_underlay("up0")
    assert "epic" not in filters(namespace, "up0")
    assert "epic_workload_underlay_ingress" in filters(namespace, "up1")


def test_xdp_comes_and_goes_with_what_is_asked_for(plane: Dataplane, namespace: Namespace) -> None:
    def runs() -> bool:
        return "prog/xdp" in namespace.run("ip link show up0")

    plane.attach_underlay("up0", "gateway", "xdp")
    assert runs()
    plane.attach_underlay("up0", "workload", "xdp")
    assert runs()
    plane.attach_underlay("up0", "workload")
    assert not runs()
    plane.attach_underlay("up0", "workload", "xdp")
    plane.unload()
    assert not runs()
    plane.load()


def test_a_driver_that_cannot_run_xdp_is_named(plane: Dataplane, namespace: Namespace) -> None:
    namespace.run("ip link add bridge0 type bridge")
    with pytest.raises(Unavailable, match="receive with tc instead"):
        plane.attach_underlay("bridge0", "gateway", "xdp")


def test_only_pairs_of_interfaces_can_be_instances_and_pods(plane: Dataplane, namespace: Namespace) -> None:
    namespace.run("ip link add bridge0 type bridge")
    with pytest.raises(Invalid, match="bridge0 is bridge"):
        plane.attach_instance("bridge0", INSIDE, INSIDE6, PUBLIC)
    with pytest.raises(Invalid, match="bridge0 is bridge"):
        plane.attach_pod("bridge0")


def test_a_pods_interface_is_taken_and_left(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_pod(INSTANCE)
    assert "epic_pod_ingress" in filters(namespace, INSTANCE)
    assert plane.pods() == {INSTANCE}
    plane.detach_pod(INSTANCE)
    assert plane.pods() == set()
    assert "clsact" not in namespace.run(f"tc qdisc show dev {INSTANCE}")
    plane.detach_pod("nothere")


def test_instances_are_known_by_name(plane: Dataplane) -> None:
    assert plane.instances() == set()
    plane.attach_instance(INSTANCE, INSIDE, None, PUBLIC)
    assert plane.instances() == {INSTANCE}


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


def test_an_interface_that_cannot_be_used_is_named(plane: Dataplane) -> None:
    with pytest.raises(NotFound, match="there is no interface nothere"):
        plane.attach_underlay("nothere", "gateway")
    with pytest.raises(Invalid, match="interface lo has no Ethernet header"):
        plane.attach_underlay("lo", "gateway")
    with pytest.raises(NotFound, match="underlay interface nothere"):
        plane.set_tunnel(tunnel(1, underlay="nothere"))
    with pytest.raises(NotFound, match="instance's interface nothere"):
        plane.set_tunnel(tunnel(1, interface="nothere"))
    plane.set_tunnel(tunnel(1))
    with pytest.raises(NotFound, match="pod's interface nothere"):
        plane.set_endpoint(INSIDE, PUBLIC, Endpoint(1, interface="nothere"))


def test_pins_need_a_bpf_file_system(tmp_path: Path, object_file: Path) -> None:
    with pytest.raises(Unavailable, match=f"{tmp_path} is no bpf file system; `mount -t bpf bpf"):
        Dataplane(tmp_path / "pins", object_file).load()


def test_without_the_object_the_message_says_how_to_make_it(bpffs: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="`make bpf` compiles them"):
        Dataplane(bpffs / "none", tmp_path / "gue.bpf.o").load()


def new_version(object_file: Path, directory: Path) -> Path:
    changed = directory / "gue.bpf.o"
    changed.write_bytes(object_file.read_bytes() + b"\0")
    return changed
