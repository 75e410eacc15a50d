# SPDX-License-Identifier: Apache-2.0
"""Tenants' templates are rendered in a process that cannot take the control plane down."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

import pytest

from epic.envoy.isolated import documents
from epic.envoy.templating import tasks
from epic.errors import Invalid
from epic.gatewayapi.routing import Cluster, Port, Routing
from epic.model.resources import EnvoyResources
from epic.model.values.naming import GatewayId

ROUTING = Routing(
    gateway=GatewayId("root", "U1"),
    display_name="",
    addresses=(IPv4Address("203.0.113.1"),),
    ports=(Port(80, "HTTP"),),
    clusters=(Cluster("svc", 80),),
)
LOOP = "{% for a in range(9999) %}"
ENDLESS = LOOP * 3 + "{% endfor %}" * 3


def templates(*clusters: str) -> EnvoyResources:
    return EnvoyResources.model_validate(
        {"clusters": [{"name": f"t{i}", "value": v} for i, v in enumerate(clusters)]}
    )


async def test_a_template_of_each_cluster_is_rendered_and_what_is_nothing_is_left_out() -> None:
    found = await documents(tasks(ROUTING, templates("name: {{ ClusterName | tojson }}", "# nothing")))
    assert [(task.kind, body["name"]) for task, body in found] == [("cluster", "svc/svc/80")]
    assert await documents(tasks(ROUTING, templates())) == []


async def test_a_fault_is_told_with_the_template() -> None:
    with pytest.raises(Invalid, match="Cluster template 't0' for svc/svc/80: 'Nothing' is undefined"):
        await documents(tasks(ROUTING, templates("name: {{ Nothing }}")))


@pytest.mark.parametrize("text", [ENDLESS, "{{ 'x' * 999999999 }}", "a: {{ '%999999999d' % 1 }}"])
async def test_what_needs_too_much_is_stopped(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(Invalid, match=r"too much time or memory|MemoryError|renders more than"):
        await documents(tasks(ROUTING, templates(text)))
    assert time.monotonic() - started < 15
