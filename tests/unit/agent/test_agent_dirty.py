# SPDX-License-Identifier: Apache-2.0
"""Where what is wanted and what is there may differ.

- After any changes, whole or failed deeds and new looks, those that differ are just those that do differ.
- What is not known to differ is not refreshed at.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from agent_samples import INSIDE, VIA, A, B
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from epic.agent.gateway.plans.dirty import Difference, EndpointDiff
from epic.agent.tunnel.endpoints import EndpointKey
from epic.bpf.dataplane import Endpoint

ELSEWHERE = IPv4Address("100.64.9.9")
KEYS = [(INSIDE, IPv4Address("10.0.0.0") + n) for n in range(4)]
ENDPOINTS = [Endpoint(7), Endpoint(8), Endpoint(7, real=A)]
keys = st.sampled_from(KEYS)
mappings = st.dictionaries(keys, st.sampled_from(ENDPOINTS))
endpoints = st.none() | st.sampled_from(ENDPOINTS)


class Node(RuleBasedStateMachine):
    """What is wanted, what the programs have, and what is known of the difference."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: dict[EndpointKey, Endpoint] = {}
        self.there: dict[EndpointKey, Endpoint] = {}
        self.known = {7, 8}
        self.differences = EndpointDiff()

    @initialize(
        there=mappings,
        wanted=mappings,
        known=st.sets(st.sampled_from([7, 8])),
        meanwhile=st.lists(st.sampled_from([7, 8]) | st.tuples(keys, endpoints), max_size=6),
    )
    def begin(
        self,
        there: dict[EndpointKey, Endpoint],
        wanted: dict[EndpointKey, Endpoint],
        known: set[int],
        meanwhile: list[int | tuple[EndpointKey, Endpoint | None]],
    ) -> None:
        """While they are compared, others are wanted, and tunnels are lost."""
        self.there, self.wanted, self.known = there, wanted, known
        for _ in self.differences.compare(list(wanted.items()), dict(there), self.is_known, at_once=1):
            for change in meanwhile[:1]:
                if isinstance(change, int):
                    self.lose_a_tunnel(change)
                else:
                    self.want(*change)
            del meanwhile[:1]

    @rule(key=keys, endpoint=endpoints)
    def want(self, key: EndpointKey, endpoint: Endpoint | None) -> None:
        self.differences.want(key, self.wanted.get(key), endpoint)
        self.wanted.pop(key, None)
        if endpoint is not None:
            self.wanted[key] = endpoint

    @rule(tunnel=st.sampled_from([7, 8]))
    def lose_a_tunnel(self, tunnel: int) -> None:
        self.known.discard(tunnel)
        for key, endpoint in self.wanted.items():
            if endpoint.tunnel == tunnel:
                self.differences.want(key, endpoint, endpoint)

    @rule(tunnel=st.sampled_from([7, 8]))
    def find_a_tunnel(self, tunnel: int) -> None:
        self.known.add(tunnel)

    @rule(chosen=st.sets(keys), fails=st.booleans(), want=st.none() | st.tuples(keys, endpoints))
    def act(
        self, chosen: set[EndpointKey], fails: bool, want: tuple[EndpointKey, Endpoint | None] | None
    ) -> None:
        """While something is done, something else may be wanted."""
        self.look()
        due = self.differences.compact(self.is_known)
        made = {k: d.wanted for k, d in due.items() if k in chosen and d.wanted is not None}
        removed = [k for k, d in due.items() if k in chosen and d.wanted is None]
        if want is not None:
            self.want(*want)
        for key in made.keys() | set(removed):
            self.there.pop(key, None)
        self.there.update(dict(list(made.items())[: len(made) // 2] if fails else made))
        if fails:
            self.differences.mark_stale([*made, *removed])
        else:
            self.differences.made(made)
            self.differences.removed(removed)

    @rule()
    def look(self) -> None:
        stale = self.differences.stale
        self.differences.refreshed(stale, {k: e for k, e in self.there.items() if k in stale})

    @invariant()
    def all_that_differs_is_known(self) -> None:
        self.look()
        due = {k: d for k, d in self.differences.compact(self.is_known).items() if d.there != d.wanted}
        right = {key: e for key, e in self.wanted.items() if self.is_known(e.tunnel)}
        assert due == {
            key: Difference(self.there.get(key), right.get(key))
            for key in self.there.keys() | right.keys()
            if self.there.get(key) != right.get(key)
        }

    def is_known(self, tunnel: int) -> bool:
        return tunnel in self.known


TestAnyCourse = Node.TestCase
TestAnyCourse.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_what_is_right_is_not_looked_at() -> None:
    differences = EndpointDiff()
    there = {(INSIDE, A): VIA, (INSIDE, B): VIA}
    steps = list(differences.compare(list(there.items()), dict(there), lambda _: True, at_once=1))
    assert len(steps) == len(there)
    assert differences.compact(lambda _: True) == {}
    differences.want((INSIDE, A), VIA, None)
    assert differences.compact(lambda _: True) == {(INSIDE, A): (VIA, None)}
    differences.removed([(INSIDE, A)])
    assert differences.compact(lambda _: True) == {}


def test_before_the_first_look_nothing_is_known() -> None:
    differences = EndpointDiff()
    differences.want((INSIDE, A), None, VIA)
    assert differences.compact(lambda _: True) == {}
    assert not differences.compared


def test_what_an_envoy_that_is_here_still_names_is_no_fault_and_keeps_its_tunnel() -> None:
    differences = EndpointDiff()
    left = {(INSIDE, A): Endpoint(7), (ELSEWHERE, B): Endpoint(8)}
    list(differences.compare([], dict(left), lambda _: True))
    assert differences.differ(lambda _: True, {INSIDE})
    assert differences.kept({INSIDE}) == {7}
    differences.removed([(ELSEWHERE, B)])
    assert not differences.differ(lambda _: True, {INSIDE})
    assert differences.differ(lambda _: True, ())
    differences.want((INSIDE, B), None, Endpoint(7))
    assert differences.differ(lambda _: True, {INSIDE})
    assert not differences.differ(lambda _: True, {INSIDE}, {(INSIDE, B)})
