# SPDX-License-Identifier: Apache-2.0
"""What tests are lent is as if it had just been loaded, and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from frames import ALL, hello
from host import GATEWAY, Host
from lent_programs import clear, clear_map, value_size

from epic.bpf.dataplane import Dataplane
from epic.bpf.programs import syscalls
from epic.bpf.programs.syscalls import MapShape
from epic.bpf.tables.events import EventRing
from epic.bpf.tables.maps import NAMES

pytestmark = pytest.mark.root

RING = "events"


@contextmanager
def opened(pin: Path) -> Iterator[tuple[int, MapShape]]:
    fd = syscalls.open_pinned(pin)
    try:
        yield fd, syscalls.map_shape(fd)
    finally:
        os.close(fd)


def ends(shape: MapShape) -> list[bytes]:
    """The first and the last key of an array; any two of a hash."""
    return [index.to_bytes(shape.key_size, "little") for index in (0, shape.max_entries - 1)]


def write(pin: Path) -> None:
    with opened(pin) as (fd, shape):
        for key in ends(shape):
            syscalls.update(fd, key, b"\xff" * value_size(shape))


def is_written(pin: Path) -> bool:
    with opened(pin) as (fd, shape):
        return any(any(syscalls.lookup(fd, key, value_size(shape)) or b"") for key in ends(shape))


def program_id(pins: Path) -> int:
    (pin,) = pins.glob("*/programs/pod_ingress")
    with opened(pin) as (fd, _):
        return syscalls.program_info(fd).id


@pytest.mark.usefixtures("plane")
def test_nothing_stays_in_a_map(bpffs: Path) -> None:
    (maps,) = bpffs.glob("plane/*/maps")
    pins = [pin for pin in maps.iterdir() if pin.name != RING]
    assert {pin.name for pin in pins} >= set(NAMES) - {RING}
    for pin in pins:
        write(pin)
    assert [pin.name for pin in pins if not is_written(pin)] == []
    clear(maps)
    assert [pin.name for pin in pins if is_written(pin)] == []


def test_no_event_stays(host: Host) -> None:
    pin = host.pin(GATEWAY).parents[1] / "maps" / RING
    for clear_it in (False, True):
        host.reset()
        with closing(EventRing(pin)) as events:
            events.read()
            assert host.dropped(GATEWAY, hello(ALL[0], 50, sport=7000)) is None
            if clear_it:
                clear_map(pin)
            assert bool(events.read()) != clear_it


@pytest.mark.usefixtures("namespace")
def test_programs_are_one_borrowers_at_a_time(bpffs: Path, object_file: Path) -> None:
    first, second = (Dataplane(bpffs / name, object_file) for name in ("first", "second"))
    first.load()
    second.load()
    lent = program_id(bpffs / "first")
    assert program_id(bpffs / "second") != lent
    first.unload()
    first.load()
    assert program_id(bpffs / "first") == lent
    first.unload()
    second.unload()
