# SPDX-License-Identifier: Apache-2.0
"""The templates among the examples make what EPIC makes by itself, but for what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from epic.envoy.resources import build
from epic.gatewayapi.translate import translate
from epic.model.resources import EnvoyResources, GWProxy, GWRoute, LBServiceGroup

PATHS_AS_SENT = Path(__file__).parents[3] / "examples/templates/paths-as-sent.yaml"
LISTENERS = [
    {"name": "web", "port": 80, "protocol": "HTTP"},
    {"name": "db", "port": 5432, "protocol": "TCP"},
    {"name": "nothing", "port": 5433, "protocol": "TCP"},
]
TCP = {"parentRefs": [{"name": "U1", "sectionName": "db"}], "rules": [{"backendRefs": [{"name": "svc"}]}]}


def listeners(templates: EnvoyResources, spec: dict[str, object]) -> dict[str, Listener]:
    proxy = GWProxy.model_validate(
        {
            "metadata": {"name": "U1", "namespace": "shop"},
            "spec": {**spec, "gateway": {"gatewayClassName": "epic", "listeners": LISTENERS}},
        }
    )
    route = GWRoute.model_validate({"metadata": {"name": "r", "namespace": "shop"}, "spec": {"tcp": TCP}})
    return dict(build(translate(proxy, [route], {"svc"}).routing, templates).listeners)


def with_paths_as_sent(listener: Listener) -> Listener:
    (found,) = listener.filter_chains[0].filters
    if found.typed_config.Is(HttpConnectionManager.DESCRIPTOR):
        manager = HttpConnectionManager()
        found.typed_config.Unpack(manager)
        manager.merge_slashes = False
        manager.path_with_escaped_slashes_action = HttpConnectionManager.KEEP_UNCHANGED
        found.typed_config.Pack(manager, deterministic=True)
    return listener


@pytest.mark.parametrize("alt", [{}, {"alt-address": "2001:db8::1"}], ids=["IPv4", "both"])
def test_paths_as_sent_is_epics_own_listener_but_for_paths(alt: dict[str, str]) -> None:
    group = LBServiceGroup.model_validate(yaml.safe_load(PATHS_AS_SENT.read_text()))
    spec = {"public-address": "203.0.113.1", **alt}
    own = listeners(EnvoyResources(), spec)
    assert len(own) == 3
    wanted = {name: with_paths_as_sent(listener) for name, listener in own.items()}
    assert listeners(group.spec.envoy_template.envoy_resources, spec) == wanted
