# SPDX-License-Identifier: Apache-2.0
"""Whether a gateway is announced, from what is known of its Envoy.

- Only a ready Envoy with the whole configuration gets the route first.
- A change under way, a refusal or a restart of the agent does not take it away; death and silence do.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from agent_samples import PUBLIC, PUBLIC6, WEB, instance
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from epic.ads.snapshot import CLUSTER, LISTENER, LOAD_ASSIGNMENT, versioned
from epic.agent.gateway.announcement import Newcomers
from epic.agent.gateway.envoy.readiness import (
    ABSENT_SECONDS,
    GIVEN_UP_SECONDS,
    HELD_BACK_SECONDS,
    RELEASE_SECONDS,
    Envoy,
    Preconditions,
    is_announced,
    plan_announcements,
    released_until,
    step,
    wanted,
)

V1, V2 = {LISTENER: {"http": "1"}}, {LISTENER: {"http": "2"}}
NEW = Envoy(asked=True, ready=True, connected=True, wanted=V1)
SERVING = step(replace(NEW, held=V1), 100, "r1")


def test_an_envoy_with_all_that_was_published_serves_its_revision() -> None:
    assert is_announced(SERVING, 100)
    assert (SERVING.served, SERVING.revision) == (True, "r1")


@pytest.mark.parametrize(
    "envoy",
    [
        pytest.param(NEW, id="nothing acknowledged yet"),
        pytest.param(replace(NEW, held=V2), id="another version"),
        pytest.param(replace(NEW, held=V1, ready=False), id="not ready"),
        pytest.param(replace(NEW, held=V1, connected=False), id="no stream"),
        pytest.param(replace(NEW, wanted={}, held={}), id="nothing to serve"),
        pytest.param(replace(NEW, refusals={LISTENER: "no"}), id="refused"),
    ],
)
def test_a_new_envoy_is_not_announced_before_it_serves(envoy: Envoy) -> None:
    assert not is_announced(step(envoy, 100, "r1"), 100)


def test_a_change_under_way_keeps_the_route_for_a_while() -> None:
    changing = step(replace(SERVING, wanted=V2), 200, "r2")
    assert is_announced(changing, 200 + HELD_BACK_SECONDS - 0.1)
    assert not is_announced(changing, 200 + HELD_BACK_SECONDS)
    assert changing.revision == "r1"


def test_a_refusal_keeps_the_last_good_configuration_in_service() -> None:
    refused = step(replace(SERVING, wanted=V2, refusals={LISTENER: "no"}), 200, "r2")
    assert is_announced(refused, 1000)
    assert (refused.error, refused.revision) == ("no", "r1")


def test_a_ready_envoy_without_a_stream_stays_for_longer() -> None:
    alone = step(replace(SERVING, connected=False), 200, "r1")
    assert is_announced(alone, 200 + ABSENT_SECONDS - 1)
    assert not is_announced(alone, 200 + ABSENT_SECONDS)


def test_an_envoy_that_died_starts_anew() -> None:
    dead = step(replace(SERVING, ready=False, connected=False, held={}), 200, "r1")
    assert not is_announced(dead, 200)
    assert not is_announced(step(replace(dead, ready=True, connected=True), 201, "r1"), 201)


ADDRESSES = {WEB: (PUBLIC,)}
PROGRAMMED = Preconditions(programmed={WEB})


def planned(envoy: Envoy, preconditions: Preconditions = PROGRAMMED, *, stands: bool) -> str:
    """What is done with the flag route."""
    add, remove = plan_announcements(
        ADDRESSES, {WEB: envoy}, preconditions, {PUBLIC} if stands else set(), 100
    )
    return "add" if add else "remove" if remove else ""


def test_of_two_addresses_the_one_that_does_not_stand_is_announced_and_both_go_together() -> None:
    addresses = {WEB: (PUBLIC, PUBLIC6)}
    serving = plan_announcements(addresses, {WEB: SERVING}, PROGRAMMED, {PUBLIC}, 100)
    assert serving == ({PUBLIC6}, set())
    dead = plan_announcements(addresses, {WEB: Envoy(asked=True)}, PROGRAMMED, {PUBLIC, PUBLIC6}, 100)
    assert dead == (set(), {PUBLIC, PUBLIC6})


def test_a_serving_gateway_is_announced_when_it_is_programmed() -> None:
    assert planned(SERVING, stands=False) == "add"
    assert planned(SERVING, Preconditions(), stands=False) == ""


def test_what_stands_goes_when_its_envoy_does_not_serve_or_it_is_not_wanted() -> None:
    assert planned(SERVING, stands=True) == ""
    assert planned(replace(SERVING, ready=False), stands=True) == "remove"
    assert plan_announcements({}, {}, Preconditions(), {PUBLIC}, 100) == (set(), {PUBLIC})


def test_a_gateway_that_is_cut_off_is_withdrawn_however_well_its_envoy_is() -> None:
    cut_off = Preconditions(programmed={WEB}, cut_off={WEB})
    assert planned(SERVING, cut_off, stands=True) == "remove"
    assert planned(SERVING, cut_off, stands=False) == ""


def test_what_an_earlier_agent_announced_stays_until_its_envoy_was_asked() -> None:
    assert planned(Envoy(served=True), stands=True) == ""


def test_another_gateways_route_is_none_of_a_new_one_with_its_address() -> None:
    assert planned(Envoy(), stands=True) == "remove"


def test_a_draining_gateway_is_not_announced_anew() -> None:
    leaving = Preconditions(programmed={WEB}, leaving={WEB})
    assert planned(SERVING, leaving, stands=True) == ""
    assert planned(SERVING, leaving, stands=False) == ""


def test_what_an_envoy_let_go_of_stays_for_requests_under_way() -> None:
    for more in (
        SERVING,
        replace(SERVING, refusals={LISTENER: "no"}, held={**V1, LISTENER: {}}),
        replace(SERVING, held={**V1, LOAD_ASSIGNMENT: {"old": "1"}}),
        replace(SERVING, connected=False),
    ):
        assert released_until(more, 100) == 100 - RELEASE_SECONDS


def test_an_envoy_that_does_not_acknowledge_is_not_waited_for_for_ever() -> None:
    behind = replace(SERVING, wanted={**V1, LOAD_ASSIGNMENT: {"c": "2"}})
    assert released_until(behind, 100) == 100 - GIVEN_UP_SECONDS


def test_endpoints_without_a_cluster_do_not_count() -> None:
    assignments = {n: versioned(ClusterLoadAssignment(cluster_name=n)) for n in ("a", "b")}
    cluster = versioned(Cluster(name="a", type=Cluster.EDS))
    versions = wanted({CLUSTER: {"a": cluster}, LOAD_ASSIGNMENT: assignments})
    assert versions[LOAD_ASSIGNMENT].keys() == {"a"}


def test_a_newcomer_waits_for_its_siblings_but_not_for_ever() -> None:
    newcomers, held = Newcomers(), {WEB: replace(instance(), hold=True)}
    assert newcomers.held(held, 100) == {WEB}
    assert newcomers.held(held, 109.9) == {WEB}
    assert newcomers.held(held, 110) == set()
    assert newcomers.held({WEB: instance()}, 111) == set()
    # It is held anew.
    assert newcomers.held(held, 112) == {WEB}


def test_a_newcomer_waits_for_its_tunnels_however_long_that_takes() -> None:
    newcomers, unconnected = Newcomers(), {WEB: replace(instance(), unconnected=True)}
    assert newcomers.held(unconnected, 100) == {WEB}
    assert newcomers.held(unconnected, 1000) == {WEB}
    assert newcomers.held({WEB: instance()}, 1001) == set()
