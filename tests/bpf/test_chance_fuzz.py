# SPDX-License-Identifier: Apache-2.0
"""Forged, mutated and replayed packets through second chance: each ends as the rules say, none is believed.

EPIC_FUZZ_CHANCE is how many packets all tests of this file run together.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable

import fuzzing
import oracle
import pytest
from chance_bed import KEY, OLD, ORDER, OWN, PUBLICS, Bed, error_about, node, without_port
from chance_sockets import Connection
from frames import ALL, ETHER, Families
from fuzzing import SEED
from kernel import OPENS_OTHER_FAMILY
from oracle_chance_passing import ASK, FOUND, GIVE, RETURN
from testrun import Ran

from epic.bpf.dataplane import Sibling
from epic.bpf.tables.chance_counters import SecondChanceCounters

pytestmark = [pytest.mark.root, pytest.mark.timeout(0)]

COUNT = int(os.environ.get("EPIC_FUZZ_CHANCE", "1000000"))
SHARE = COUNT // (4 * len(ALL)) + 1
BATCH = 1024
"""Fewer than siblings are asked about at once: the rules know of no time."""
BACK = {"visited": 0b1111, "origin": OWN, "spare": OWN}
LEARNED = {"visited": 0b0110, "origin": OWN, "spare": 1}
ELSEWHERE = {"over_budget", "no_route"}
"""What depends on time and on routes, of which the rules know nothing: it has tests of its own."""
REASONS = {
    *("outer_length", "outer_fragment", "gue_version", "gue_header_length", "gue_flags", "gue_protocol"),
    *("inner_header", "inner_length", "congestion"),
    *("chance_gateway", "chance_field", "chance_flow", "chance_sibling", "chance_tag"),
}
MET: dict[tuple[str, str], set[str]] = {}
"""By family and sender the counters and drop reasons that the run has met."""
FAMILIES = pytest.mark.parametrize("families", ALL, ids=str)


def begin(bed: Bed, families: Families) -> tuple[Connection, Connection]:
    """A connection that is here and one that is not."""
    if families.over != families.inner and not OPENS_OTHER_FAMILY:
        pytest.skip("this kernel takes nothing out of the other family")
    # The rules know nothing of sockets that earlier tests left in TIME_WAIT: no mutated port may be theirs.
    bed.leave_ports()
    return bed.open(families.inner), bed.another(families.inner)


def from_router(here: Connection, elsewhere: Connection) -> list[bytes]:
    packets = [each.packet(flags, b"payload") for each in (here, elsewhere) for flags in ("A", "S", "R")]
    packets += [error_about(here), error_about(elsewhere)]
    return [bytes(ETHER / packet) for packet in packets]


def from_siblings(bed: Bed, here: Connection, elsewhere: Connection) -> list[bytes]:
    found = []
    for packet in (here.packet("PA", b"payload"), elsewhere.packet(), error_about(here)):
        found += [
            bed.passed_on(packet),
            bed.passed_on(packet, visited=0b1011),
            bed.passed_on(packet, visited=0b1000),
            bed.passed_on(packet, flags=RETURN, **(BACK | {"spare": 1})),
            bed.passed_on(packet, flags=RETURN, **BACK),
            bed.passed_on(packet, flags=GIVE, **BACK),
            bed.passed_on(packet, slot=0, key=OLD, flags=GIVE, **BACK),
            bed.passed_on(packet, flags=FOUND, **LEARNED),
        ]
    return found


def agree(bed: Bed, frames: list[bytes], world: oracle.World) -> Counter[str]:
    """Each ends as the rules say; how often the rules said what."""
    said: Counter[str] = Counter()
    for frame in frames:
        verdict, packet, reason = oracle.receive(frame, world)
        try:
            ran = bed.program.run(frame)
        except OSError:
            # The kernel refuses to make a buffer of what is shorter than its IP header.
            assert len(frame) < 54
            continue
        same = verdict == oracle.DROPPED or without_port(ran) == without_port(Ran(verdict, packet))
        assert ran.verdict == verdict, f"{frame.hex()}: {ran}, not {verdict} {reason}"
        assert same, f"{frame.hex()}: {ran.packet.hex()}, not {packet.hex()}"
        said[reason or {-1: "left", 2: "learned", 7: "sent"}[verdict]] += 1
    return said


@FAMILIES
@pytest.mark.parametrize("sender", ["router", "sibling"])
def test_the_kernel_and_the_rules_agree_on_any_packet(bed: Bed, families: Families, sender: str) -> None:
    here, elsewhere = begin(bed, families)
    good = from_router(here, elsewhere) if sender == "router" else from_siblings(bed, here, elsewhere)
    source = random.Random(f"{SEED} {sender} {families}")
    frames = itertools.chain(good, itertools.islice(fuzzing.mutations(source, good), SHARE))
    world, total = bed.world, Counter[str]()
    bed.chance.counted.clear()
    before, dropped = bed.counted(), bed.plane.drop_counters()
    if sender == "router":
        total += lonely_and_learned(bed, families, elsewhere)
    while batch := list(itertools.islice(frames, BATCH)):
        with bed.namespace:
            total += agree(bed, batch, world)
        renew_budget(bed)
    counted = bed.counted()
    counted.subtract(before)
    assert +counted == +bed.chance.counted
    now = bed.plane.drop_counters()
    reasons = {name: n - dropped[name] for name, n in now.items() if n != dropped[name]}
    assert reasons == {name: n for name, n in total.items() if name in now}
    print(families, sender, dict(total), dict(+counted))
    MET[str(families), sender] = {*reasons, *+counted}


def lonely_and_learned(bed: Bed, families: Families, elsewhere: Connection) -> Counter[str]:
    """A packet to a gateway without other siblings; then it has some, and one of them is found to have it."""
    packet = elsewhere.packet("A", b"payload")
    bed.tell(families.inner, siblings=(Sibling(OWN, node(bed.over, OWN)),))
    with bed.namespace:
        total = agree(bed, [bytes(ETHER / packet)], bed.world)
    renew_budget(bed)
    with bed.namespace:
        return total + agree(bed, [bed.passed_on(packet, flags=FOUND, **LEARNED)], bed.world)


def test_the_run_has_met_every_counter_and_reason() -> None:
    """Else the rules agree on too little."""
    if len(MET) < 2 * len(ALL):
        pytest.skip("only a part was run")
    assert set.union(*MET.values()) >= {*SecondChanceCounters.__dataclass_fields__, *REASONS} - ELSEWHERE


def renew_budget(bed: Bed) -> None:
    """The list changes, and back; and what gateways share."""
    for inner in PUBLICS:
        for order in (ORDER[:3], ORDER):
            bed.tell(inner, siblings=tuple(Sibling(index, node(bed.over, index)) for index in order))
    bed.renew_shared_budgets()


def captured(bed: Bed, here: Connection) -> list[bytes]:
    """What the sibling of index 1 passed on of each kind, under a key that is to go."""
    signed = {"key": OLD, "slot": 0}
    return [
        bed.passed_on(packet, flags=flags, **(fields | signed))
        for packet in (here.packet(), here.packet("PA", b"payload"), error_about(here))
        for flags, fields in ((ASK, {}), (RETURN, BACK), (GIVE, BACK), (FOUND, LEARNED))
    ]


def take_the_key(bed: Bed, families: Families) -> None:
    bed.tell(families.inner, keys=(None, KEY))


def take_the_sender(bed: Bed, families: Families) -> None:
    bed.tell(families.inner, siblings=tuple(Sibling(i, node(bed.over, i)) for i in ORDER if i != 1))


def move_the_sender(bed: Bed, families: Families) -> None:
    moved = (Sibling(i, node(bed.over, i if i != 1 else 9)) for i in ORDER)
    bed.tell(families.inner, siblings=tuple(moved))


def become_another(bed: Bed, families: Families) -> None:
    """What was sent to the one is sent to another."""
    siblings = (Sibling(i, node(bed.over, {OWN: 0, 0: OWN}.get(i, i))) for i in ORDER)
    bed.tell(families.inner, own=0, siblings=tuple(siblings))


@FAMILIES
@pytest.mark.parametrize("change", [take_the_key, take_the_sender, move_the_sender, become_another])
def test_what_was_captured_is_not_believed_after(
    bed: Bed, families: Families, change: Callable[[Bed, Families], None]
) -> None:
    here, _ = begin(bed, families)
    packets = captured(bed, here)
    with bed.namespace:
        assert agree(bed, packets, bed.world).keys() == {"left", "learned"}, "it was good before"
    change(bed, families)
    before, source = bed.counted(), random.Random(f"{SEED} replayed {families}")
    with bed.namespace:
        for frame in source.choices(packets, k=SHARE // 4 + 1):
            assert bed.program.run(frame).verdict == oracle.DROPPED, frame.hex()
    assert bed.counted() == before


@FAMILIES
def test_nothing_that_the_tag_binds_can_be_changed(bed: Bed, families: Families) -> None:
    """Neither the header nor the flow."""
    here, _ = begin(bed, families)
    good = [bed.passed_on(here.packet()), bed.passed_on(here.packet(), flags=FOUND, **LEARNED)]
    before, places = bed.counted(), bound(families)
    source = random.Random(f"{SEED} bound {families}")
    changed = fuzzing.mutations(source, good, range(places[0], places[-1] + 1))
    with bed.namespace:
        for frame in itertools.islice(changed, SHARE):
            if not any(same_at(places, frame, each) for each in good):
                assert bed.program.run(frame).verdict in {oracle.DROPPED, oracle.NOT_OURS}, frame.hex()
    assert bed.counted() == before


def same_at(places: list[int], frame: bytes, other: bytes) -> bool:
    return all(frame[place : place + 1] == other[place : place + 1] for place in places)


def bound(families: Families) -> list[int]:
    """Positions that the tag covers, and the tag: the GUE header, and the flow but for its lengths."""
    start = families.outer_end
    inner = start + 16
    addresses = range(12, 20) if families.inner == 4 else range(8, 40)
    ports = range(families.header, families.header + 4)
    return [*range(start, inner), *(inner + place for place in (*addresses, *ports))]
