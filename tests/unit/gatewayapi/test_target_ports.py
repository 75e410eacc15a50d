# SPDX-License-Identifier: Apache-2.0
"""Which port of a slice serves a port of its Service: never one that stands for another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.gatewayapi.target_ports import ServicePorts, TargetPorts
from epic.model.gatewayapi import EndpointPort


def target_ports(*ports: dict[str, Any]) -> TargetPorts:
    return TargetPorts([EndpointPort.model_validate(port) for port in ports])


@pytest.mark.parametrize(
    ("ports", "wanted", "chosen"),
    [
        pytest.param([], 80, None, id="no port"),
        pytest.param([{"port": 8080}], 80, 8080, id="the only one"),
        pytest.param([{"name": "web", "port": 8080}], None, 8080, id="the only one, unasked"),
        pytest.param([{"name": "80", "port": 8080}], None, 8080, id="the only one with a number, unasked"),
        pytest.param([{"name": "80", "port": 8080}], 81, None, id="the only one is another's"),
        pytest.param([{"port": 8080}, {"port": 80}], 80, 80, id="by its own number"),
        pytest.param([{"port": 8080}, {"name": "80", "port": 9090}], 80, 9090, id="by its name"),
        pytest.param([{"port": 80}, {"name": "80", "port": 9090}], 80, 9090, id="the name before the number"),
        pytest.param([{"name": "80", "port": 8080}, {"port": 1}], 8080, None, id="the number of another's"),
        pytest.param([{"port": 8080}, {"port": 9090}], 81, None, id="none of several"),
        pytest.param([{"port": 8080}, {"port": 9090}], None, None, id="several, unasked"),
        pytest.param([{"name": "a", "port": 8080}, {"name": "b", "port": 8080}], 81, 8080, id="one twice"),
        pytest.param([{"port": 53, "protocol": "UDP"}, {"port": 9090}], 53, 9090, id="UDP does not count"),
    ],
)
def test_which_port_of_a_slice_serves_a_port_of_the_service(
    ports: list[dict[str, Any]], wanted: int | None, chosen: int | None
) -> None:
    assert target_ports(*ports).serving(wanted) == chosen


def test_a_service_lacks_a_port_that_no_slice_serves_unless_none_has_any() -> None:
    two = target_ports({"port": 8080}, {"port": 9090})
    nothing = target_ports()
    assert ServicePorts([two]).lacks(81)
    assert ServicePorts([two, nothing]).lacks(81)
    assert not ServicePorts([two]).lacks(8080)
    assert not ServicePorts([two, target_ports({"port": 81}, {"port": 82})]).lacks(81)
    assert not ServicePorts([two, target_ports({"port": 8080})]).lacks(81)
    assert not ServicePorts([nothing]).lacks(81)
    assert not ServicePorts([]).lacks(81)


PORTS = st.fixed_dictionaries(
    {"port": st.integers(80, 83)},
    optional={
        "name": st.sampled_from(["80", "81", "080", "web", "\u0668\u0660"]),
        "protocol": st.sampled_from(["TCP", "UDP"]),
    },
)


@given(st.lists(st.lists(PORTS, max_size=3), max_size=4), st.sampled_from([None, 80, 81, 82, 84]))
def test_what_the_slices_of_a_service_lack_together_is_what_each_of_them_lacks(
    slices: list[list[dict[str, Any]]], port: int | None
) -> None:
    known = [found for ports in slices if (found := target_ports(*ports))]
    lacking = bool(known) and all(found.serving(port) is None for found in known)
    assert ServicePorts(target_ports(*ports) for ports in slices).lacks(port) == lacking


def test_each_slice_is_looked_at_once_however_many_ports_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merged = ServicePorts([target_ports({"port": 8080}, {"port": 9090})] * 5)
    monkeypatch.delattr(TargetPorts, "serving")
    assert [port for port in range(8079, 8082) if merged.lacks(port)] == [8079, 8081]
