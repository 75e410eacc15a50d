# SPDX-License-Identifier: Apache-2.0
"""Reading the control plane's resources.

- Instances, tunnels with their key slots, endpoints, and the backends that Envoys may use.
- What makes no sense is refused with the resource's name.
- Each Envoy gets its own gateway's resources under their native names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest
from agent_samples import (
    HTTP,
    INSIDE,
    INSIDE6,
    KEY,
    VIA,
    WEB,
    A,
    B,
    C,
    compare,
    endpoint_message,
    instance_message,
    named,
    tunnel_message,
)
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LOAD_ASSIGNMENT,
    TUNNEL,
    TYPES,
    Snapshot,
    Versioned,
    versioned,
)
from epic.agent.gateway.control.resource_cache import ResourceCache
from epic.agent.gateway.plans.dirty import DirtySet
from epic.bpf.dataplane import Endpoint
from epic.model.values.naming import instance_interface
from epic.proto import epic_pb2

OLD, NEW = bytes(16), KEY


def assignment(*hosts: str) -> Versioned:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": h, "port_value": 80}}}} for h in hosts
    ]
    data = {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}
    return versioned(ParseDict(data, ClusterLoadAssignment()))


def snapshot() -> Snapshot:
    return {
        INSTANCE: {WEB: versioned(instance_message())},
        TUNNEL: {"7": versioned(tunnel_message((4, OLD), (5, NEW)))},
        ENDPOINT: {f"{WEB}/{A}": versioned(endpoint_message(A))},
        CLUSTER: {f"{WEB}/c": versioned(Cluster(name="c")), "shop.other/c": versioned(Cluster(name="c"))},
        LOAD_ASSIGNMENT: {f"{WEB}/c": assignment(str(A), str(B), "a.name.example")},
    }


def cache_of(resources: Snapshot) -> ResourceCache:
    cache = ResourceCache()
    for type_url, group in resources.items():
        cache.update(type_url, group)
    return cache


def test_all_is_read() -> None:
    found = cache_of(snapshot())
    assert found.instances[WEB].elements == {HTTP}
    assert (found.tunnels[7].keys, found.tunnels[7].active) == ((OLD, NEW), 1)
    assert dict(found.endpoints()) == {(INSIDE, A): VIA}


def test_endpoints_are_counted_by_gateway() -> None:
    cache = cache_of(snapshot())
    cache.update(ENDPOINT, {f"{WEB}/{A}": versioned(endpoint_message(A, real="10.0.0.1"))})
    cache.update(ENDPOINT, {f"{WEB}/{B}": versioned(endpoint_message(B))})
    assert cache.endpoint_counts == {WEB: 2}
    cache.update(ENDPOINT, {}, [f"{WEB}/{A}", "shop.other/10.0.0.1"])
    assert cache.endpoint_counts == {WEB: 1}
    cache.update(ENDPOINT, {}, [f"{WEB}/{B}"])
    assert dict(cache.endpoint_counts) == {}


def test_both_families_and_mapped_endpoints_are_read() -> None:
    found = cache_of(
        {
            **snapshot(),
            INSTANCE: {WEB: versioned(instance_message())},
            ENDPOINT: {
                f"{WEB}/{A}": versioned(endpoint_message(A, real="10.0.0.1")),
                f"{WEB}/{B}": versioned(endpoint_message(B, real=str(B))),
                f"{WEB}/{C}": versioned(endpoint_message(C, inside=INSIDE6)),
            },
            LOAD_ASSIGNMENT: {f"{WEB}/c": assignment(str(A), str(C))},
        }
    )
    assert found.instances[WEB].insides == (INSIDE, INSIDE6)
    assert dict(found.endpoints()) == {
        (INSIDE, A): Endpoint(7, real=IPv4Address("10.0.0.1")),
        (INSIDE, B): VIA,
        (INSIDE6, C): VIA,
    }


@pytest.mark.parametrize(("signing", "active"), [(6, 0), (5, 1)])
def test_the_key_signs_that_is_said_to(signing: int, active: int) -> None:
    message = tunnel_message((6, NEW), (5, OLD), signing=signing)
    found = cache_of({**snapshot(), TUNNEL: {"7": versioned(message)}})
    assert (found.tunnels[7].keys, found.tunnels[7].active) == ((NEW, OLD), active)


def test_tunnels_and_endpoints_of_absent_gateways_do_not_count() -> None:
    found = cache_of({**snapshot(), INSTANCE: {}})
    assert not found.known(7)


def test_a_change_keeps_the_rest() -> None:
    cache = cache_of(snapshot())
    cache.update(ENDPOINT, {f"{WEB}/{B}": versioned(endpoint_message(B))}, [f"{WEB}/{A}"])
    assert dict(cache.endpoints()) == {(INSIDE, B): VIA}
    assert cache.versions(ENDPOINT).keys() == {f"{WEB}/{B}"}
    both = {f"{WEB}/{A}": versioned(endpoint_message(A)), f"{WEB}/{C}": versioned(endpoint_message(C))}
    assert cache.update(ENDPOINT, both).keys() == {f"{WEB}/{A}"}
    assert dict(cache.endpoints()) == {(INSIDE, B): VIA, (INSIDE, A): VIA}


def test_versions_are_told_by_the_name_that_came() -> None:
    cache = cache_of(snapshot())
    for type_url, resources in snapshot().items():
        expected = {name: resource.version for name, resource in resources.items()}
        assert cache.versions(type_url) == expected


def test_all_types_are_received_before_anything_is_taken_to_be_complete() -> None:
    cache = ResourceCache()
    for type_url in TYPES:
        assert not cache.complete
        cache.update(type_url, {})
    assert cache.complete


def test_each_envoy_gets_its_own_resources() -> None:
    parts = cache_of(snapshot()).parts
    assert parts[WEB][CLUSTER].keys() == {"c"}
    assert parts[WEB][LOAD_ASSIGNMENT].keys() == {"c"}
    assert parts["shop.other"][LOAD_ASSIGNMENT] == {}


def test_what_was_published_stays_as_it_was() -> None:
    cache = cache_of(snapshot())
    published = cache.parts[WEB]
    cache.update(LOAD_ASSIGNMENT, {f"{WEB}/d": assignment(str(A))}, [f"{WEB}/c"])
    assert published[LOAD_ASSIGNMENT].keys() == {"c"}
    assert cache.parts[WEB][LOAD_ASSIGNMENT].keys() == {"d"}
    cache.update(CLUSTER, {}, [f"{WEB}/c", "shop.other/c"])
    cache.update(LOAD_ASSIGNMENT, {}, [f"{WEB}/d"])
    assert cache.parts == {}


def test_a_change_touches_only_what_it_concerns() -> None:
    cache = cache_of(snapshot())
    cache.dirty = DirtySet()
    compare(cache, dict(cache.endpoints()))
    cache.update(ENDPOINT, {f"{WEB}/{B}": versioned(endpoint_message(B))})
    assert cache.dirty.endpoints.compact(cache.known) == {(INSIDE, B): (None, VIA)}
    assert (cache.dirty.tunnels, cache.dirty.gateways) == (set(), {WEB}), "its Envoy hears that it reaches it"
    cache.dirty.gateways.clear()
    cache.update(LOAD_ASSIGNMENT, {"shop.other/c": assignment(str(A))})
    assert (cache.dirty.tunnels, cache.dirty.gateways) == (set(), {"shop.other"})
    cache.update(INSTANCE, {}, [WEB])
    assert (cache.dirty.tunnels, cache.dirty.gateways) == ({7}, {"shop.other", WEB})
    assert cache.dirty.endpoints.compact(cache.known) == {(INSIDE, A): (VIA, None), (INSIDE, B): (None, None)}


def test_an_endpoint_is_reached_when_its_tunnel_is_known_and_the_programs_have_it() -> None:
    cache = cache_of(snapshot())
    cache.dirty = DirtySet()
    compare(cache, {})
    assert cache.tunnel_to(f"{WEB}/{A}") is None
    cache.dirty.endpoints.made({(INSIDE, A): VIA})
    assert cache.tunnel_to(f"{WEB}/{A}") == 7
    assert cache.tunnel_to(f"{WEB}/{B}") is None
    cache.update(TUNNEL, {}, ["7"])
    assert (cache.tunnel_to(f"{WEB}/{A}"), cache.dirty.gateways) == (None, {WEB})
    cache.dirty.gateways.clear()
    cache.update(TUNNEL, {"7": versioned(tunnel_message((4, OLD)))})
    assert (cache.tunnel_to(f"{WEB}/{A}"), cache.dirty.gateways) == (7, {WEB})


def test_another_key_of_a_tunnel_is_no_news_for_an_envoy() -> None:
    cache = cache_of(snapshot())
    cache.dirty = DirtySet()
    cache.update(TUNNEL, {"7": versioned(tunnel_message((5, NEW)))})
    assert (cache.dirty.tunnels, cache.dirty.gateways) == ({7}, set())


def of_web(message: Message) -> Mapping[str, Versioned]:
    return {WEB: versioned(message)}


GARBAGE = Versioned("1", CLUSTER, b"\xff\xff")


@pytest.mark.parametrize(
    ("type_url", "resources", "message"),
    [
        pytest.param(INSTANCE, named(x=instance_message()), "must be shop.web", id="other name"),
        pytest.param(
            INSTANCE, of_web(instance_message(public_addresses=[""])), "Instance shop.web", id="address"
        ),
        pytest.param(
            INSTANCE, of_web(instance_message(inside_address6="")), "Instance shop.web", id="no IPv6 address"
        ),
        pytest.param(INSTANCE, of_web(instance_message(interface="eth0")), "epg644000017bb2", id="interface"),
        pytest.param(INSTANCE, named(web=instance_message(gateway="web")), "ACCOUNT.PROXY", id="gateway"),
        pytest.param(TUNNEL, {"7": versioned(tunnel_message((1, b"short")))}, "5 bytes", id="key"),
        pytest.param(TUNNEL, {"7": versioned(tunnel_message())}, "at least one key", id="no key"),
        pytest.param(TUNNEL, named(x=tunnel_message((1, KEY))), "must be 7", id="number"),
        pytest.param(ENDPOINT, named(x=endpoint_message(A)), f"must be {WEB}/{A}", id="endpoint's name"),
        pytest.param(
            ENDPOINT, {f"{WEB}/{C}": versioned(endpoint_message(C))}, "not of one family", id="families"
        ),
        pytest.param(CLUSTER, named(c=Cluster(name="c")), "GATEWAY/NAME", id="name"),
        pytest.param(CLUSTER, {f"{WEB}/c": GARBAGE}, "cannot be decoded", id="garbage"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    type_url: str, resources: Mapping[str, Versioned], message: str
) -> None:
    cache = ResourceCache()
    assert cache.update(type_url, resources) == {}
    (refused,) = cache.refused.values()
    assert re.search(message, refused)


def test_a_bad_resource_stops_no_other_and_its_earlier_one_stays() -> None:
    cache = cache_of(snapshot())
    other = instance_message(gateway="bank.web", interface=instance_interface("bank.web", INSIDE))
    bad = instance_message(ports=[epic_pb2.Port(number=80, protocol="sctp")])
    taken = cache.update(INSTANCE, {WEB: versioned(bad), "bank.web": versioned(other)})
    assert taken.keys() == {"bank.web"}
    assert cache.instances.keys() == {WEB, "bank.web"}
    assert cache.instances[WEB].elements == {HTTP}
    assert "sctp" in cache.refused[INSTANCE, WEB]
    cache.update(INSTANCE, {WEB: versioned(instance_message(revision="r2"))})
    assert (cache.refused, cache.instances[WEB].revision) == ({}, "r2")


def test_a_node_that_leaves_wants_nothing() -> None:
    cache = cache_of(snapshot())
    cache.clear()
    assert (cache.instances, cache.tunnels, dict(cache.endpoints()), cache.parts) == ({}, {}, {}, {})
    assert cache.complete
