# SPDX-License-Identifier: Apache-2.0
"""Which nodes are silent.

- One that answers is asked at every second tick; one that does not at each.
- A row of probes without an answer: lost; the first answer: back.
- Nobody is lost because this node's agent was held up, or because this node was cut off.
- A probe is asked in the name of a gateway that both nodes have, by turns while there is no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from agent_samples import KEY, PUBLIC, WEB, siblings_message

from epic.agent.gateway.chance import heartbeat as heartbeat_module
from epic.agent.gateway.chance.heartbeat import Heartbeat
from epic.agent.gateway.chance.liveness import CUT_OFF_ENDS_AFTER, LOST_AFTER, Liveness
from epic.agent.gateway.chance.second_chance import SecondChance
from epic.agent.gateway.chance.siblings import Sibling, Siblings, read_siblings
from epic.bpf.dataplane import Address
from epic.bpf.packets.probe import Probe, decode, encode

ONE, TWO, THREE = (IPv4Address(f"172.30.11.{number}") for number in (2, 3, 4))


class Watch:
    """Nodes that answer, or not, at once."""

    def __init__(self, *addresses: Address, lost: tuple[Address, ...] = ()) -> None:
        self.liveness = Liveness(lost)
        self.liveness.watch(addresses)
        self.silent: set[Address] = set()
        self.nonce = 0

    def tick(self, times: int = 1) -> list[Address]:
        """Whom the last tick asked."""
        asked: list[Address] = []
        for _ in range(times):
            asked = self.liveness.tick()
            for address in asked:
                self.nonce += 1
                self.liveness.ask(address, self.nonce)
                if address not in self.silent:
                    assert self.liveness.hear(address, self.nonce)
        return asked


def test_a_node_that_answers_is_asked_at_every_second_tick() -> None:
    watch = Watch(TWO)
    assert [watch.tick() for _ in range(4)] == [[TWO], [], [TWO], []]
    watch.silent.add(TWO)
    assert [watch.tick() for _ in range(4)] == [[TWO]] * 4


def test_a_node_that_is_silent_for_a_row_of_probes_is_lost_and_the_first_answer_brings_it_back() -> None:
    watch = Watch(TWO, THREE)
    watch.tick(3)
    watch.silent.add(TWO)
    watch.tick(LOST_AFTER)
    assert watch.liveness.lost == set()
    watch.tick(2)
    assert watch.liveness.lost == {TWO}
    watch.silent.clear()
    watch.tick()
    assert watch.liveness.lost == set()


def test_lost_answers_in_between_make_nobody_lost() -> None:
    watch = Watch(TWO)
    for _ in range(5):
        watch.silent.add(TWO)
        watch.tick(LOST_AFTER - 1)
        watch.silent.clear()
        watch.tick(1)
    assert watch.liveness.lost == set()


def test_late_answers_count_and_others_do_not() -> None:
    liveness = Liveness()
    liveness.watch([TWO])
    for nonce in range(3):
        liveness.ask(TWO, nonce)
    assert not liveness.hear(TWO, 99)
    assert not liveness.hear(THREE, 0)
    assert liveness.hear(TWO, 0)
    assert not liveness.hear(TWO, 2)


def test_a_node_that_is_cut_off_itself_finds_nobody_lost() -> None:
    watch = Watch(TWO, THREE)
    watch.silent |= {TWO, THREE}
    watch.tick(20)
    assert watch.liveness.lost == set()
    # The answers come one after the other.
    watch.silent.remove(THREE)
    watch.tick(2)
    assert watch.liveness.lost == set()
    watch.tick(LOST_AFTER + 1)
    assert watch.liveness.lost == {TWO}


def test_all_others_are_lost_when_their_silence_lasts() -> None:
    watch = Watch(TWO, THREE)
    watch.silent |= {TWO, THREE}
    watch.tick(CUT_OFF_ENDS_AFTER + 2)
    assert watch.liveness.lost == {TWO, THREE}
    watch.silent.clear()
    watch.tick(2)
    assert watch.liveness.lost == set()


def test_the_last_of_two_can_be_lost() -> None:
    watch = Watch(TWO, THREE)
    for address in (TWO, THREE):
        watch.silent.add(address)
        watch.tick(LOST_AFTER + 2)
    assert watch.liveness.lost == {TWO, THREE}


def test_who_was_lost_before_the_agent_began_is_lost_until_it_answers() -> None:
    watch = Watch(lost=(TWO,))
    watch.silent.add(TWO)
    assert watch.liveness.lost == {TWO}
    watch.liveness.watch([TWO, THREE])
    watch.tick(2)
    assert watch.liveness.lost == {TWO}
    watch.silent.clear()
    watch.tick(2)
    assert watch.liveness.lost == set()


def test_nobody_is_lost_who_is_not_watched_any_more() -> None:
    watch = Watch(TWO)
    watch.silent.add(TWO)
    watch.tick(LOST_AFTER + 1)
    watch.liveness.watch([THREE])
    assert watch.liveness.lost == set()


class Sent:
    """The datagrams of a heartbeat: to whom, and what."""

    def __init__(self) -> None:
        self.probes: list[tuple[Address, Probe]] = []
        self.payloads: list[bytes] = []
        self.changes = 0

    def send(self, payload: bytes, source: Address, destination: Address) -> None:
        probe = decode(payload)
        assert payload == encode(probe, KEY, source, destination)
        self.probes.append((destination, probe))
        self.payloads.append(payload)

    def changed(self) -> None:
        self.changes += 1


def beating(*gateways: str) -> tuple[Heartbeat, Sent, SecondChance]:
    """The heartbeat of epic1, with the siblings epic2 and epic3 of each gateway."""
    chance = SecondChance(None, "epic1")  # type: ignore[arg-type]
    lists = [read_siblings(siblings_message(gateway=gateway), "v1") for gateway in gateways]
    chance._wanted.change({s.gateway: replace(s, publics=(PUBLIC + n,)) for n, s in enumerate(lists)})
    chance.applied = dict.fromkeys(gateways, "v1")
    sent = Sent()
    return Heartbeat("epic1", chance, sent.send, sent.changed), sent, chance


def test_each_node_is_asked_once_however_many_gateways_it_shares() -> None:
    heartbeat, sent, _ = beating("bank.web", WEB)
    heartbeat.tick()
    assert [(to, probe.asker, probe.asked) for to, probe in sent.probes] == [(THREE, 0, 2), (TWO, 0, 1)]
    assert len({probe.nonce for _, probe in sent.probes}) == 2


def test_only_the_lists_that_are_others_than_before_are_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateways = [f"shop.g{number}" for number in range(50)]
    heartbeat, sent, chance = beating(*gateways)
    looked: list[str] = []
    others = Siblings.others

    def counted(self: Siblings, node: str) -> tuple[Sibling, ...]:
        looked.append(self.gateway)
        return others(self, node)

    monkeypatch.setattr(Siblings, "others", counted)
    heartbeat.tick()
    assert sorted(looked) == sorted(gateways)
    looked.clear()
    alone = replace(chance._wanted.all["shop.g7"], siblings=chance._wanted.all["shop.g7"].siblings[:1])
    chance._wanted.change({"shop.g7": alone, "shop.g8": None})
    chance.applied = {gateway: "v2" for gateway in gateways if gateway != "shop.g8"}
    heartbeat.tick()
    # As they were, and the changed one as it is.
    assert sorted(looked) == ["shop.g7", "shop.g7", "shop.g8"]
    assert heartbeat.nodes.keys() == {TWO, THREE}
    chance._wanted.change(dict.fromkeys(gateways))
    chance.applied = {}
    sent.probes.clear()
    heartbeat.tick()
    assert (heartbeat.nodes, sent.probes) == ({}, [])


def answer(heartbeat: Heartbeat, sent: Sent, only: Callable[[Address], bool]) -> None:
    for (address, _), payload in zip(sent.probes, sent.payloads, strict=True):
        if only(address):
            heartbeat.hear(payload, address)
    sent.probes.clear()
    sent.payloads.clear()


def test_a_silent_node_is_told_to_the_programs_and_so_is_its_return() -> None:
    heartbeat, sent, chance = beating(WEB)
    for _ in range(LOST_AFTER + 1):
        heartbeat.tick()
        answer(heartbeat, sent, lambda address: address == TWO)
    assert (chance.lost, sent.changes) == ({THREE}, 1)
    for _ in range(2):
        heartbeat.tick()
        answer(heartbeat, sent, lambda _: True)
    assert (chance.lost, sent.changes) == (set(), 2)


def test_a_node_that_stays_silent_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat, sent, _ = beating(WEB)
    for _ in range(LOST_AFTER + 1):
        heartbeat.tick()
        answer(heartbeat, sent, lambda address: address == TWO)
    assert heartbeat.problems == []
    monkeypatch.setattr(heartbeat_module, "_PROBLEM_SECONDS", -1.0)
    (problem,) = heartbeat.problems
    assert "172.30.11.4 does not answer on UDP port 6080" in problem
    for _ in range(2):
        heartbeat.tick()
        answer(heartbeat, sent, lambda _: True)
    assert heartbeat.problems == []


def test_what_is_no_probe_or_comes_from_elsewhere_is_no_answer() -> None:
    heartbeat, sent, chance = beating(WEB)
    for _ in range(LOST_AFTER + 2):
        heartbeat.tick()
        for payload in sent.payloads:
            heartbeat.hear(payload, ONE)
            heartbeat.hear(payload[:-1], THREE)
            heartbeat.hear(payload[:24] + bytes(16), THREE)
        answer(heartbeat, sent, lambda address: address == TWO)
    assert chance.lost == {THREE}


def test_a_gateway_that_is_not_answered_for_gives_its_turn_to_another() -> None:
    heartbeat, sent, _ = beating("bank.web", WEB)
    asked = []
    for _ in range(4):
        heartbeat.tick()
        asked += [probe.public for to, probe in sent.probes if to == TWO]
        answer(heartbeat, sent, lambda address: address == THREE)
    assert asked == [PUBLIC, PUBLIC + 1, PUBLIC, PUBLIC + 1]
