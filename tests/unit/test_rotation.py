# SPDX-License-Identifier: Apache-2.0
"""Key rotation: at every moment each end can verify what the other signs, however late news arrive."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from epic.model.resources import Tunnel, TunnelSpec
from epic.rotation import (
    NOTHING,
    Holds,
    Policy,
    Step,
    begin_limit,
    is_rotating,
    lifetime,
    next_step,
    take,
    waits_for,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(timedelta(hours=24), timedelta(seconds=30))
SECRET = "00" * 16
WAIT = timedelta(seconds=20)


def tunnel(signing: int = 1, *epochs: int, since: datetime = START) -> Tunnel:
    spec = {
        "proxy": "U1",
        "service": 1,
        "epic-node": "epic1",
        "inside-address": "100.64.0.1",
        "cluster-id": "c",
        "node-name": "n1",
        "node-address": "192.0.2.1",
        "keys": [{"epoch": epoch, "secret": SECRET} for epoch in epochs or (1,)],
        "signing-epoch": signing,
        "signing-since": since,
    }
    metadata = {"name": "7", "namespace": "shop", "creationTimestamp": START}
    return Tunnel.model_validate({"metadata": metadata, "spec": spec})


def named(found: Tunnel, name: str) -> Tunnel:
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"name": name})})


def held(signing: int, *epochs: int, seconds: float = 0) -> Holds:
    return Holds(frozenset(epochs), signing, timedelta(seconds=seconds))


def step(found: Tunnel, epic: Holds, workload: Holds, after: timedelta) -> Step | None:
    return next_step(found, (epic, workload), START + after, POLICY)


def test_a_key_lives_for_its_period_at_most_and_for_most_of_it() -> None:
    end = held(1, 1)
    assert step(tunnel(), end, end, timedelta(hours=19)) is None
    assert step(tunnel(), end, end, timedelta(hours=24)) is Step.BEGIN


def test_tunnels_of_one_age_do_not_rotate_together() -> None:
    many = [named(tunnel(), str(number)) for number in range(2000)]
    lives = sorted(lifetime(each, POLICY) / POLICY.period for each in many)
    assert lives[0] >= 0.8
    assert lives[-1] <= 1
    for tenth in range(8, 10):
        assert 900 < sum(tenth / 10 <= life < (tenth + 1) / 10 for life in lives) < 1100


def test_a_tunnels_keys_live_differently_long() -> None:
    assert len({lifetime(tunnel(epoch, epoch), POLICY) for epoch in range(1, 20)}) == 19


def test_so_many_rotations_begin_that_all_tunnels_come_round_in_half_the_period() -> None:
    pause, policy = timedelta(seconds=5), Policy(timedelta(minutes=10))
    assert begin_limit(20000, pause, policy) == 334
    assert begin_limit(1, pause, policy) == 1
    assert begin_limit(0, pause, policy) == 0
    assert begin_limit(20000, pause, Policy(timedelta(0))) == 20000


def test_nothing_begins_before_both_ends_are_known_to_have_the_present_key() -> None:
    assert step(tunnel(), held(1, 1), NOTHING, timedelta(days=2)) is None
    assert step(tunnel(), NOTHING, held(1, 1), timedelta(days=2)) is None


def test_the_new_key_signs_as_soon_as_both_ends_have_it() -> None:
    under_way = tunnel(1, 1, 2)
    assert step(under_way, held(1, 1, 2), held(1, 1), timedelta(0)) is None
    assert waits_for(under_way.spec, (held(1, 1, 2), held(1, 1))) == [False, True]
    assert step(under_way, held(1, 1, 2), held(1, 1, 2), timedelta(0)) is Step.SIGN


def test_the_old_key_goes_after_the_grace_time_and_when_nobody_signs_with_it() -> None:
    signing = tunnel(2, 1, 2)
    old, late, new = held(1, 1, 2, seconds=99), held(2, 1, 2, seconds=29), held(2, 1, 2, seconds=30)
    assert step(signing, new, late, timedelta(hours=9)) is None
    assert step(signing, new, old, timedelta(hours=9)) is None
    assert step(signing, new, new, timedelta(hours=9)) is Step.FINISH


def test_the_tunnel_after_each_step() -> None:
    later = START + timedelta(days=1)
    begun = take(tunnel().spec, Step.BEGIN, later, "11" * 16)
    assert ([k.epoch for k in begun.keys], begun.signing_epoch, begun.signing_since) == ([1, 2], 1, START)
    signs = take(begun, Step.SIGN, later)
    assert ([k.epoch for k in signs.keys], signs.signing_epoch, signs.signing_since) == ([1, 2], 2, later)
    done = take(signs, Step.FINISH, later)
    assert [(k.epoch, k.secret.get_secret_value()) for k in done.keys] == [(2, "11" * 16)]


@dataclass
class End:
    """An end: what was sent to it last, what it works with, and what it has said since when."""

    offered: TunnelSpec
    works_with: TunnelSpec
    said: Holds = NOTHING
    since: datetime = START

    def say(self, now: datetime) -> None:
        if self.said.signing != self.works_with.signing_epoch:
            self.since = now
        self.said = Holds(frozenset(key.epoch for key in self.works_with.keys), self.works_with.signing_epoch)

    def known(self, now: datetime) -> Holds:
        return replace(self.said, signing_for=now - self.since)


MOVES = {"control": 4, "offer": 4, "take": 4, "say": 4, "forget": 1, "second": 6, "wait": 2, "age": 1}


@settings(max_examples=30, deadline=None)
@given(st.integers(min_value=0))
def test_each_end_verifies_what_the_other_signs_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    stored, now = tunnel(), START
    ends = [End(stored.spec, stored.spec), End(stored.spec, stored.spec)]
    # Packets under way: to which end, their key's epoch and when they were sent.
    flying: list[tuple[int, int, datetime]] = []
    for move in chance.choices(list(MOVES), weights=list(MOVES.values()), k=1500):
        flying += [(1 - i, end.works_with.signing_epoch, now) for i, end in enumerate(ends)]
        end = chance.choice(ends)
        match move:
            case "control":
                due = next_step(stored, [end.known(now) for end in ends], now, POLICY)
                if due is not None:
                    spec = take(stored.spec, due, now, SECRET)
                    stored = stored.model_copy(update={"spec": spec})
            case "offer":
                end.offered = stored.spec
            case "take":
                end.works_with = end.offered
            case "say":
                end.say(now)
            case "forget":
                end.said = NOTHING
            case _:
                now += {"second": timedelta(seconds=1), "wait": WAIT, "age": POLICY.period}[move]
        # A packet is under way for less than the grace time, less what a report is late.
        flying = list({packet for packet in flying if now - packet[2] < POLICY.grace})
        for to, epoch, _ in flying:
            assert epoch in {key.epoch for key in ends[to].works_with.keys}
        # Two slots by parity hold all keys there are.
        epochs = [key.epoch for key in stored.spec.keys]
        assert len({epoch % 2 for epoch in epochs}) == len(epochs)
    assert stored.spec.signing_epoch > 5


@given(st.integers(min_value=1, max_value=12))
def test_rotation_comes_to_its_end_when_both_ends_speak(rounds: int) -> None:
    stored, now = tunnel(), START
    for _ in range(rounds):
        for due in (Step.BEGIN, Step.SIGN, Step.FINISH):
            now += timedelta(hours=24)
            spec = stored.spec
            said = held(spec.signing_epoch, *(key.epoch for key in spec.keys), seconds=60)
            assert next_step(stored, (said, said), now, POLICY) is due
            stored = stored.model_copy(update={"spec": take(spec, due, now, SECRET)})
        assert not is_rotating(stored.spec)
    assert stored.spec.signing_epoch == rounds + 1
