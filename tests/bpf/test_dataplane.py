"""Loading, attaching and the maps as the agent sees them."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from namespaces import Namespace

from epic.bpf.dataplane import Dataplane, Tunnel
from epic.errors import Invalid, NotFound, Unavailable

pytestmark = pytest.mark.root

INSIDE, PUBLIC = IPv4Address("100.64.0.1"), IPv4Address("203.0.113.1")
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


def tunnel(id_: int, interface: str | None = None) -> Tunnel:
    local = IPv4Address("172.30.2.2")
    return Tunnel(id_, 3, INSIDE, local, None, 6080, "up0", interface, (bytes(16), None), 0)


def filters(namespace: Namespace, interface: str) -> str:
    hooks = ("ingress", "egress")
    return "".join(namespace.run(f"tc filter show dev {interface} {hook}") for hook in hooks)


def test_load_and_attach_again_changes_nothing(plane: Dataplane, namespace: Namespace) -> None:
    def bring_up() -> str:
        plane.load()
        plane.attach_underlay("up0", "gateway")
        plane.attach_instance(INSTANCE, INSIDE, PUBLIC)
        return filters(namespace, "up0") + filters(namespace, INSTANCE)

    first = bring_up()
    assert first.count("direct-action") == 2
    assert bring_up() == first


def test_another_process_sees_the_same_state(plane: Dataplane, bpffs: Path, object_file: Path) -> None:
    plane.set_tunnel(tunnel(7))
    plane.set_endpoint(INSIDE, PUBLIC, 7)
    other = Dataplane(bpffs / "plane", object_file)
    assert (other.tunnel_ids(), other.endpoints()) == ({7}, {(INSIDE, PUBLIC): 7})


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


def test_maps_of_another_shape_are_begun_anew(
    plane: Dataplane, bpffs: Path, object_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plane.set_tunnel(tunnel(7))
    (pin,) = (bpffs / "plane").glob("*/maps/tunnels")
    pin.unlink()
    create = f"bpftool map create {pin} type hash key 4 value 8 entries 10 name tunnels"
    subprocess.run(create.split(), check=True)
    newer = Dataplane(bpffs / "plane", new_version(object_file, tmp_path))
    with caplog.at_level(logging.WARNING):
        newer.load()
    assert newer.tunnel_ids() == set()
    assert "have another shape" in caplog.text


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


def test_an_instance_whose_interface_is_gone_can_be_detached(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    plane.attach_instance(INSTANCE, INSIDE, PUBLIC)
    namespace.run(f"ip link del {INSTANCE}")
    plane.detach_instance(INSTANCE)
    plane.detach_instance(INSTANCE)
    for name in ("instances", "insides"):
        (pin,) = (bpffs / "plane").glob(f"*/maps/{name}")
        dumped = subprocess.run(
            ["bpftool", "map", "dump", "pinned", pin], capture_output=True, text=True, check=True
        )
        assert dumped.stdout.strip() in ("[]", "Found 0 elements")


def test_a_recreated_interface_takes_the_place_of_the_old_one(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_instance(INSTANCE, INSIDE, PUBLIC)
    namespace.run(f"ip link del {INSTANCE}", f"ip link add {INSTANCE} type veth peer name peer0")
    plane.attach_instance(INSTANCE, INSIDE, PUBLIC)
    plane.detach_instance(INSTANCE)
    assert "clsact" not in namespace.run(f"tc qdisc show dev {INSTANCE}")


def test_thousands_of_entries_are_listed(plane: Dataplane) -> None:
    pairs = {(INSIDE, IPv4Address(0x0A000000 + number)): number for number in range(1, MANY)}
    for (inside, endpoint), id_ in pairs.items():
        plane.set_endpoint(inside, endpoint, id_)
    assert plane.endpoints() == pairs
    for pair in pairs:
        plane.delete_endpoint(*pair)
    assert plane.endpoints() == {}


def test_deleting_what_is_not_there_is_no_error(plane: Dataplane) -> None:
    plane.delete_tunnel(99)
    plane.delete_endpoint(INSIDE, PUBLIC)
    plane.detach_instance("epgffffffff")
    assert plane.peer(99) is None
    assert plane.tunnel_counters() == {}


def test_an_interface_that_cannot_be_used_is_named(plane: Dataplane) -> None:
    with pytest.raises(NotFound, match="there is no interface nothere"):
        plane.attach_underlay("nothere", "gateway")
    with pytest.raises(Invalid, match="interface lo has no Ethernet header"):
        plane.attach_underlay("lo", "gateway")
    with pytest.raises(NotFound, match="underlay interface nothere"):
        plane.set_tunnel(Tunnel(1, 1, INSIDE, PUBLIC, None, 1, "nothere", None, (bytes(16), None), 0))


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
