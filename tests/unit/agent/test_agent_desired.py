"""Reading the control plane's resources.

- Instances, tunnels with their key slots, endpoints, and the backends that Envoys may use.
- What makes no sense is refused with the resource's name.
- Each Envoy gets its own gateway's resources under their native names.
"""

from __future__ import annotations

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
    endpoint_message,
    instance_message,
    named,
    tunnel_message,
)
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import ParseDict

from epic.ads.snapshot import (
    CLUSTER,
    ENDPOINT,
    INSTANCE,
    LOAD_ASSIGNMENT,
    TUNNEL,
    Snapshot,
    Versioned,
    versioned,
)
from epic.agent.desired import Desired, envoy_snapshots
from epic.agent.held import Held
from epic.bpf.dataplane import Endpoint

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


def desired(resources: Snapshot) -> Desired:
    held = Held()
    for type_url, group in resources.items():
        held.update(type_url, group)
    return held.desired()


def test_all_is_read() -> None:
    found = desired(snapshot())
    assert found.instances[WEB].elements == {HTTP}
    assert (found.tunnels[7].keys, found.tunnels[7].active) == ((OLD, NEW), 1)
    assert found.endpoints == {(INSIDE, A): VIA}
    assert found.used == {(INSIDE, A), (INSIDE, B)}


def test_both_families_and_mapped_endpoints_are_read() -> None:
    found = desired(
        {
            **snapshot(),
            INSTANCE: {WEB: versioned(instance_message(inside_address6=str(INSIDE6)))},
            ENDPOINT: {
                "mapped": versioned(endpoint_message(A, real="10.0.0.1")),
                "same": versioned(endpoint_message(B, real=str(B))),
                "six": versioned(endpoint_message(C, inside=INSIDE6)),
            },
            LOAD_ASSIGNMENT: {f"{WEB}/c": assignment(str(A), str(C))},
        }
    )
    assert found.instances[WEB].insides == (INSIDE, INSIDE6)
    assert found.endpoints == {
        (INSIDE, A): Endpoint(7, real=IPv4Address("10.0.0.1")),
        (INSIDE, B): VIA,
        (INSIDE6, C): VIA,
    }
    assert found.used == {(INSIDE, A), (INSIDE6, C)}


def test_the_highest_epoch_signs() -> None:
    found = desired({**snapshot(), TUNNEL: {"7": versioned(tunnel_message((6, NEW), (5, OLD)))}})
    assert (found.tunnels[7].keys, found.tunnels[7].active) == ((NEW, OLD), 0)


def test_tunnels_and_endpoints_of_absent_gateways_do_not_count() -> None:
    found = desired({**snapshot(), INSTANCE: {}})
    assert (found.tunnels, found.endpoints, found.used) == ({}, {}, frozenset())


def test_a_change_keeps_the_rest() -> None:
    held = Held()
    for type_url, group in snapshot().items():
        held.update(type_url, group)
    held.update(ENDPOINT, {f"{WEB}/{B}": versioned(endpoint_message(B))}, [f"{WEB}/{A}"])
    assert held.desired().endpoints == {(INSIDE, B): VIA}
    assert held.versions[ENDPOINT].keys() == {f"{WEB}/{B}"}
    with pytest.raises(ValueError, match="not of one family"):
        held.update(ENDPOINT, {"a": versioned(endpoint_message(A)), "b": versioned(endpoint_message(C))})
    assert held.desired().endpoints == {(INSIDE, B): VIA}


def test_what_is_kept_is_what_came() -> None:
    given = {
        f"{WEB}/{A}": versioned(endpoint_message(A, real="10.0.0.1")),
        f"{WEB}/{B}": versioned(endpoint_message(B)),
        "another name": versioned(endpoint_message(B)),
    }
    held = Held()
    held.update(ENDPOINT, given)
    assert {name: content for _, name, _, content in held.resources()} == {
        name: resource.body.value for name, resource in given.items()
    }


def test_without_instances_nothing_is_known() -> None:
    held = Held()
    held.update(TUNNEL, {})
    assert not held.complete
    held.update(INSTANCE, {})
    assert held.complete


def test_each_envoy_gets_its_own_resources() -> None:
    parts = envoy_snapshots(snapshot())
    assert parts[WEB][CLUSTER].keys() == {"c"}
    assert parts[WEB][LOAD_ASSIGNMENT].keys() == {"c"}
    assert parts["shop.other"][LOAD_ASSIGNMENT] == {}


GARBAGE = Versioned("1", Any(type_url=CLUSTER, value=b"\xff\xff"))


@pytest.mark.parametrize(
    ("type_url", "resources", "message"),
    [
        pytest.param(INSTANCE, named(x=instance_message(public_address="")), "Instance x", id="address"),
        pytest.param(INSTANCE, named(x=instance_message(interface="eth0")), "epg64400001", id="interface"),
        pytest.param(INSTANCE, named(x=instance_message(gateway="web")), "ACCOUNT.PROXY", id="gateway"),
        pytest.param(TUNNEL, named(x=tunnel_message((1, b"short"))), "5 bytes", id="key"),
        pytest.param(TUNNEL, named(x=tunnel_message()), "at least one key", id="no key"),
        pytest.param(ENDPOINT, named(x=endpoint_message(C)), "not of one family", id="families"),
        pytest.param(CLUSTER, named(c=Cluster(name="c")), "GATEWAY/NAME", id="name"),
        pytest.param(CLUSTER, {f"{WEB}/c": GARBAGE}, "cannot be decoded", id="garbage"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    type_url: str, resources: Mapping[str, Versioned], message: str
) -> None:
    if type_url == TUNNEL:
        resources = {"x": resources["x"]}
    with pytest.raises(ValueError, match=message):
        Held().update(type_url, resources)
