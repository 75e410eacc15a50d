# SPDX-License-Identifier: Apache-2.0
"""Probes of siblings' nodes: the programs answer siblings, by the gateway's keys, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from frames import ALL, KEY, OLD_KEY, PORT, PUBLIC, WRONG_KEY, Families, outer
from host import GATEWAY, WORKLOAD, Host
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw
from testrun import PASS, REDIRECT

from epic.bpf.dataplane import Address, Sibling, Siblings
from epic.bpf.packets.probe import Probe, decode, encode

pytestmark = pytest.mark.root
OVER = pytest.mark.parametrize("families", [ALL[0], ALL[2]], ids=["IPv4", "IPv6"])
OWN, FAR, THIRD = 3, 12, 7
QUESTION, ANSWER = Probe(FAR, OWN, PUBLIC, 0x1122334455667788), Probe(OWN, FAR, PUBLIC, 99)


@pytest.fixture
def siblings(host: Host, families: Families) -> Siblings:
    """This node, the far one, and a third."""
    found = Siblings(
        own=OWN,
        netns=None,
        siblings=(
            Sibling(FAR, families.node, draining=True),
            Sibling(OWN, families.epic),
            Sibling(THIRD, families.stranger, alive=False),
        ),
        keys=(OLD_KEY, KEY),
        active=1,
        account=1,
    )
    host.gateway.set_siblings(PUBLIC, found)
    return found


def frame(
    families: Families,
    probe: Probe = QUESTION,
    key: bytes = KEY,
    source: Address | None = None,
    **changes: int,
) -> Packet:
    """A probe from the far sibling's node, signed for the way that it is to go."""
    ends = {FAR: families.node, OWN: families.epic, THIRD: families.stranger}
    asker, asked = (ends.get(index, families.node) for index in (probe.asker, probe.asked))
    head = outer(source or families.node, families.epic, PORT, sport=changes.pop("sport", 6080))
    return head / Raw(encode(probe, key, asker, asked))


def turned_back(packet: Packet) -> Packet:
    """As it is to be answered; the link header is written by the kernel."""
    found = packet.__class__(bytes(packet))
    found[1].src, found[1].dst = found[1].dst, found[1].src
    found[UDP].sport, found[UDP].dport = found[UDP].dport, found[UDP].sport
    return found


@OVER
@pytest.mark.parametrize("key", [KEY, OLD_KEY], ids=["new", "old"])
@pytest.mark.usefixtures("siblings")
def test_a_probe_of_a_sibling_is_sent_back_as_it_is(host: Host, families: Families, key: bytes) -> None:
    packet = frame(families, key=key, sport=1234)
    ran = host.run(GATEWAY, packet)
    assert ran.verdict == REDIRECT
    assert ran.packet[14:] == bytes(turned_back(packet))[14:]


@OVER
@pytest.mark.usefixtures("siblings")
def test_an_answer_to_our_own_is_the_agents(host: Host, families: Families) -> None:
    packet = frame(families, ANSWER)
    assert host.run(GATEWAY, packet) == (PASS, bytes(packet))


@OVER
@pytest.mark.usefixtures("siblings")
def test_a_sibling_whose_node_was_silent_is_answered(host: Host, families: Families) -> None:
    packet = frame(families, replace(QUESTION, asker=THIRD), source=families.stranger)
    assert host.run(GATEWAY, packet).verdict == REDIRECT


@OVER
@pytest.mark.usefixtures("siblings")
def test_who_is_no_sibling_is_not_answered(host: Host, families: Families) -> None:
    for packet, reason in (
        (frame(families, key=WRONG_KEY), "chance_tag"),
        (frame(families, source=families.stranger), "chance_sibling"),
        (frame(families, replace(QUESTION, asker=THIRD)), "chance_sibling"),
        (frame(families, replace(QUESTION, asker=5)), "chance_sibling"),
        (frame(families, replace(QUESTION, asked=THIRD)), "chance_sibling"),
        (frame(families, Probe(OWN, OWN, PUBLIC, 1)), "chance_sibling"),
        (frame(families, replace(QUESTION, asker=16)), "control_field"),
        (frame(families, replace(QUESTION, public=ip_address("203.0.113.250"))), "chance_gateway"),
    ):
        assert host.dropped(GATEWAY, packet) == reason


@OVER
@pytest.mark.usefixtures("siblings")
def test_no_probe_with_a_changed_bit_is_believed(host: Host, families: Families) -> None:
    packet = bytes(frame(families))
    for place in range(families.outer_end, len(packet)):
        for bit in range(8):
            changed = bytearray(packet)
            changed[place] ^= 1 << bit
            assert host.run(GATEWAY, bytes(changed)).verdict not in {PASS, REDIRECT}


@OVER
def test_a_node_without_siblings_answers_nobody(host: Host, families: Families, siblings: Siblings) -> None:
    host.gateway.set_siblings(PUBLIC, replace(siblings, keys=(None, WRONG_KEY)))
    assert host.dropped(GATEWAY, frame(families)) == "chance_tag"
    host.gateway.delete_siblings(PUBLIC)
    assert host.dropped(GATEWAY, frame(families)) == "chance_gateway"
    assert host.dropped(WORKLOAD, frame(families)) is not None


def test_probes_are_read_as_they_are_written() -> None:
    source, destination = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    for public in (PUBLIC, ip_address("2001:db8::7")):
        probe = replace(QUESTION, public=public)
        assert decode(encode(probe, KEY, source, destination)) == probe
