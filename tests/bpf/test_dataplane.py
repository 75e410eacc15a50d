# SPDX-License-Identifier: Apache-2.0
"""Loading and attaching as the agent sees them."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from namespaces import Namespace
from planes import INSIDE, INSIDE6, INSTANCE, PUBLIC, UNDERLAY, tunnel

from epic.bpf.dataplane import Dataplane, Endpoint
from epic.bpf.tables.maps import Map
from epic.errors import Invalid, NotFound, Unavailable

pytestmark = pytest.mark.root


def filters(namespace: Namespace, interface: str) -> str:
    hooks = ("ingress", "egress")
    return "".join(namespace.run(f"tc filter show dev {interface} {hook}") for hook in hooks)


def test_load_and_attach_again_changes_nothing(plane: Dataplane, namespace: Namespace) -> None:
    def bring_up() -> str:
        plane.load()
        plane.attach_underlay("up0", "gateway")
        plane.attach_instance(INSTANCE, INSIDE, INSIDE6, (PUBLIC,))
        return filters(namespace, "up0") + filters(namespace, INSTANCE)

    first = bring_up()
    assert first.count("direct-action") == 3
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
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, (PUBLIC,))
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
    assert "epic_workload" not in filters(namespace, "up0")
    assert "epic_gateway_underlay_egress" in filters(namespace, "up0")


def test_an_instance_whose_interface_is_gone_can_be_detached(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, (PUBLIC,))
    namespace.run(f"ip link del {INSTANCE}")
    plane.detach_instance(INSTANCE)
    plane.detach_instance(INSTANCE)
    assert plane.instances() == set()


def test_a_recreated_interface_takes_the_place_of_the_old_one(plane: Dataplane, namespace: Namespace) -> None:
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, (PUBLIC,))
    namespace.run(f"ip link del {INSTANCE}", f"ip link add {INSTANCE} type veth peer name peer0")
    plane.attach_instance(INSTANCE, INSIDE, INSIDE6, (PUBLIC,))
    plane.detach_instance(INSTANCE)
    assert "clsact" not in namespace.run(f"tc qdisc show dev {INSTANCE}")


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
        plane.attach_instance("bridge0", INSIDE, INSIDE6, (PUBLIC,))
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
    plane.attach_instance(INSTANCE, INSIDE, None, (PUBLIC,))
    assert plane.instances() == {INSTANCE}


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
