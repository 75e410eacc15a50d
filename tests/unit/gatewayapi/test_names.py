# SPDX-License-Identifier: Apache-2.0
"""Names of Envoy's resources, whatever tenants call their things."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from epic.gatewayapi.names import (
    AGENT_CLUSTER,
    cluster_name,
    host_name,
    is_reserved,
    missing_name,
    port_name,
)
from epic.gatewayapi.translate import translate
from epic.model.resources import GWProxy, GWRoute

HOSTILE = st.text() | st.sampled_from(
    [AGENT_CLUSTER, "svc", "a/b", "%2F", "UID:80", "svc/UID/80", "missing", "..", "\ud800", "", "80"]
)
PORTS = st.none() | st.integers(1, 65535)
SERVICE_PORTS = st.tuples(HOSTILE, PORTS)
MISSING = st.tuples(HOSTILE, HOSTILE, HOSTILE)


@given(SERVICE_PORTS, SERVICE_PORTS)
def test_two_ports_of_services_never_share_a_cluster(
    one: tuple[str, int | None], other: tuple[str, int | None]
) -> None:
    assume(one != other)
    assert cluster_name(*one) != cluster_name(*other)


@given(MISSING, MISSING)
def test_two_missing_backends_never_share_a_name(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assume(one != other)
    assert missing_name(*one) != missing_name(*other)


@given(SERVICE_PORTS, MISSING, HOSTILE)
def test_what_is_of_another_kind_has_another_name_and_none_is_the_agents(
    service: tuple[str, int | None], missing: tuple[str, str, str], hostname: str
) -> None:
    names = [cluster_name(*service), missing_name(*missing), host_name(hostname), port_name(80)]
    assert len({*names, AGENT_CLUSTER, "missing/none"}) == len(names) + 2
    assert all(is_reserved(name) for name in (*names, AGENT_CLUSTER))
    assert all(name.isascii() and name.isprintable() for name in names)


@pytest.mark.parametrize("name", ["backend", "svc", "epic", "web/svc/UID/80", "HTTP-80"])
def test_other_names_are_free_for_templates(name: str) -> None:
    assert not is_reserved(name)


def cluster_names(*ports: int) -> set[str]:
    gateway = {
        "gatewayClassName": "epic",
        "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}],
    }
    spec = {"public-address": "203.0.113.1", "gateway": gateway}
    proxy = GWProxy.model_validate({"metadata": {"name": "U1", "namespace": "root"}, "spec": spec})
    routes = [
        GWRoute.model_validate(
            {
                "metadata": {"name": f"r{port}", "namespace": "root"},
                "spec": {
                    "http": {
                        "parentRefs": [{"name": "U1"}],
                        "rules": [{"backendRefs": [{"name": "S1", "port": port}]}],
                    }
                },
            }
        )
        for port in ports
    ]
    return {cluster.name for cluster in translate(proxy, routes, {"S1"}).routing.clusters}


def test_the_name_of_a_cluster_does_not_depend_on_other_routes() -> None:
    assert cluster_names(8080) == {"svc/S1/8080"}
    assert cluster_names(80, 8080) == {"svc/S1/80", "svc/S1/8080"}
