# SPDX-License-Identifier: Apache-2.0
"""What guards an underlay's egress stays when others remove its filters, and goes when we say so."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import socket
import struct
from pathlib import Path

import pytest
from namespaces import Namespace, eventually
from planes import tunnel

from epic.bpf.dataplane import Dataplane, Role
from epic.bpf.programs import syscalls

_PROG_QUERY, _TCX_EGRESS = 16, 47
HAS_TCX = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2]) >= (6, 6)
pytestmark = [pytest.mark.root, pytest.mark.skipif(not HAS_TCX, reason="this kernel has no TCX")]


def index(namespace: Namespace, name: str = "up0") -> int:
    with namespace:
        return socket.if_nametoindex(name)


def pins(bpffs: Path) -> list[Path]:
    return sorted((bpffs / "plane").glob("*/links/*"))


def pinned_id(program: Path) -> int:
    fd = syscalls.open_pinned(program)
    try:
        return syscalls.program_info(fd).id
    finally:
        os.close(fd)


def running_id(pin: Path) -> int:
    """Of the program that the link runs."""
    fd = syscalls.open_pinned(pin)
    try:
        return syscalls.tcx_link(fd).program
    finally:
        os.close(fd)


def order(namespace: Namespace) -> list[int]:
    """The ids of the programs at the egress of up0 that run by links, first to last."""
    ids = (ctypes.c_uint32 * 8)()
    asked = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", index(namespace), _TCX_EGRESS, 0, 0, ctypes.addressof(ids), len(ids)), 64
    )
    with namespace:
        syscalls.bpf(_PROG_QUERY, asked)
    (count,) = struct.unpack_from("=I", asked, 24)
    return list(ids)[:count]


def is_loaded(program: int) -> bool:
    try:
        os.close(syscalls.program_by_id(program))
    except FileNotFoundError:
        return False
    return True


@pytest.mark.parametrize("role", ["gateway", "workload"])
def test_a_link_stays_when_clsact_goes(plane: Dataplane, namespace: Namespace, role: Role) -> None:
    assert not plane.is_linked(index(namespace))
    plane.attach_underlay("up0", role)
    namespace.run("tc qdisc del dev up0 clsact")
    assert plane.is_linked(index(namespace))


def test_a_link_runs_before_those_that_others_had_there(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    (other,) = (bpffs / "plane").glob("*/programs/segment_ingress")
    program = syscalls.open_pinned(other)
    link = syscalls.create_tcx_egress_link(program, index(namespace))
    try:
        plane.attach_underlay("up0", "workload")
        (pin,) = pins(bpffs)
        assert order(namespace) == [running_id(pin), syscalls.program_info(program).id]
    finally:
        os.close(link)
        os.close(program)


def test_attaching_again_changes_nothing(plane: Dataplane, bpffs: Path) -> None:
    plane.attach_underlay("up0", "workload")
    (first,) = pins(bpffs)
    seen = running_id(first)
    plane.attach_underlay("up0", "workload")
    assert [(pin, running_id(pin)) for pin in pins(bpffs)] == [(first, seen)]


def test_another_role_and_another_version_run_by_the_same_link(
    plane: Dataplane, namespace: Namespace, bpffs: Path, object_file: Path, tmp_path: Path
) -> None:
    plane.attach_underlay("up0", "workload")
    plane.attach_underlay("up0", "gateway")
    (pin,) = pins(bpffs)
    assert running_id(pin) == pinned_id(pin.parents[1] / "programs/gateway_underlay_egress")
    plane.set_tunnel(tunnel(7))
    changed = tmp_path / "gue.bpf.o"
    changed.write_bytes(object_file.read_bytes() + b"\0")
    newer = Dataplane(bpffs / "plane", changed)
    newer.load()
    (now,) = pins(bpffs)
    assert now != pin
    assert running_id(now) == pinned_id(now.parents[1] / "programs/gateway_underlay_egress")
    assert newer.is_linked(index(namespace))


def test_a_link_of_an_interface_that_is_gone_is_forgotten(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    plane.attach_underlay("up0", "workload")
    before = index(namespace)
    namespace.run("ip link del up0")
    assert not plane.is_linked(before)
    namespace.run("ip link add up0 type veth peer name far0")
    plane.attach_underlay("up0", "workload")
    assert [pin.name for pin in pins(bpffs)] == [str(index(namespace))]
    assert plane.is_linked(index(namespace))


def test_an_interface_that_is_given_up_has_no_link(
    plane: Dataplane, namespace: Namespace, bpffs: Path
) -> None:
    plane.attach_underlay("up0", "workload")
    plane.detach_underlay("up0")
    assert (pins(bpffs), plane.is_linked(index(namespace))) == ([], False)


@pytest.mark.usefixtures("own_programs")
def test_with_everything_else_links_go(plane: Dataplane, bpffs: Path) -> None:
    plane.attach_underlay("up0", "workload")
    (pin,) = pins(bpffs)
    held = syscalls.open_pinned(pin)
    try:
        program = syscalls.tcx_link(held).program
    finally:
        os.close(held)
    plane.unload()
    assert pins(bpffs) == []
    assert eventually(lambda: not is_loaded(program))


def test_a_kernel_without_tcx_has_its_filters(
    plane: Dataplane, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_TCX_EGRESS", 4711)
    plane.attach_underlay("up0", "workload")
    assert "epic_" in namespace.run("tc filter show dev up0 egress")
    assert not plane.is_linked(index(namespace))
