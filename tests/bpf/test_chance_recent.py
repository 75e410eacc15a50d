# SPDX-License-Identifier: Apache-2.0
"""Second chance: sockets that were found just now are not looked up again for each packet."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from chance_bed import FAR, Bed, ends
from chance_sockets import Connection
from frames import ETHER, INNER, Families
from namespaces import eventually

from epic.bpf.programs.syscalls import possible_cpus
from epic.bpf.tables.maps import Map

pytestmark = pytest.mark.root

LINE = struct.Struct("=36sI16sQ")
"""struct recent: flow, namespace and family, what the socket expects, until when in jiffies."""
LONG = 1 << 62

Line = tuple[bytes, int, bytes, int]


def rewrite(bed: Bed, change: Callable[[bytes, int, bytes, int], Line]) -> int:
    """Change what is remembered of flows, on whichever processor; of how many something is."""
    (pin,) = Path(bed.plane._loader.directory).glob("maps/recents")
    found = 0
    with closing(Map(pin, 4, LINE.size, possible_cpus())) as recents:
        for key, value in list(recents.items()):
            before = list(LINE.iter_unpack(value))
            lines = [change(*line) if line[3] else line for line in before]
            if lines != before:
                recents.set(key, b"".join(LINE.pack(*line) for line in lines))
            found += sum(bool(until) for *_, until in lines)
    return found


def forget(*_: object) -> Line:
    return bytes(36), 0, bytes(16), 0


def until(jiffies: int) -> Callable[[bytes, int, bytes, int], Line]:
    return lambda flow, place, expected, _: (flow, place, expected, jiffies)


def turned(place: int) -> Callable[[bytes, int, bytes, int], Line]:
    """A bit of the flow is another one."""

    def change(flow: bytes, *rest: object) -> Line:
        return (flow[:place] + bytes([flow[place] ^ 1]) + flow[place + 1 :], *rest)  # type: ignore[return-value]

    return change


@pytest.fixture(autouse=True)
def one_processor() -> Iterator[None]:
    """Each remembers what it has found itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def gone(bed: Bed, families: Families) -> Iterator[Connection]:
    """A connection whose socket was found for as long as a test takes, and is gone since."""
    rewrite(bed, forget)
    opened = bed.open(families.inner)
    assert ends(bed, ETHER / opened.packet())[2] == {"hits"}
    assert rewrite(bed, until(LONG)) == 1
    bed.forget()
    yield opened
    rewrite(bed, forget)


def hits(bed: Bed, opened: Connection) -> bool:
    """Whether its next packet is taken to be of the socket here."""
    before = bed.counted()["hits"]
    bed.run(ETHER / opened.packet())
    return bed.counted()["hits"] > before


@INNER
def test_a_socket_that_was_found_just_now_is_not_looked_up_again(bed: Bed, gone: Connection) -> None:
    assert hits(bed, gone)


@INNER
def test_one_that_was_found_a_while_ago_is(bed: Bed, gone: Connection) -> None:
    rewrite(bed, until(1))
    assert not hits(bed, gone)


@INNER
def test_no_socket_is_remembered_for_longer_than_a_moment(bed: Bed, families: Families) -> None:
    rewrite(bed, forget)
    opened = bed.open(families.inner)
    assert hits(bed, opened)
    bed.forget()
    assert eventually(lambda: not hits(bed, opened), 1.0)


@INNER
def test_what_does_not_fit_what_was_found_is_looked_up(bed: Bed, gone: Connection) -> None:
    assert not hits(bed, gone.moved(sequence=FAR))
    assert not hits(bed, gone.moved(acknowledged=FAR))
    assert hits(bed, gone)


@INNER
def test_another_flow_in_the_same_place_is_looked_up(bed: Bed, gone: Connection) -> None:
    for place in (0, 4, 9, 11):
        rewrite(bed, turned(place))
        assert not hits(bed, gone)
        rewrite(bed, turned(place))
        assert hits(bed, gone)


@INNER
def test_what_was_found_in_another_namespace_does_not_count(
    bed: Bed, families: Families, gone: Connection
) -> None:
    bed.tell(families.inner, netns=bed.instance.netns + 1)
    assert not hits(bed, gone)
    bed.tell(families.inner)
    assert hits(bed, gone)


@INNER
def test_only_open_connections_are_remembered(bed: Bed, families: Families) -> None:
    rewrite(bed, forget)
    assert ends(bed, ETHER / bed.stranger(families.inner).packet())[2] == {"passed_on"}
    opened = bed.open(families.inner)
    assert not hits(bed, opened.moved(sequence=FAR))
    assert rewrite(bed, until(LONG)) == 0
