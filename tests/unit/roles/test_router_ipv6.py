# SPDX-License-Identifier: Apache-2.0
"""A node that forwards IPv6 has a router that hears of IPv6 addresses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from role_values import ROLES

OVER_IPV4: dict[str, Any] = {"name": "a", "address": "192.0.2.1", "as": 64512}
OVER_IPV6: dict[str, Any] = {**OVER_IPV4, "address": "2001:db8::1"}


def refused(*neighbors: dict[str, Any], prefixes: tuple[str, ...] = (), forward: bool = True) -> bool:
    """Whether the role refuses a node of such a site."""
    tasks = yaml.safe_load((ROLES / "router/tasks/main.yml").read_text())
    (task,) = (task for task in tasks if task["name"] == "Refuse IPv6 addresses that no router hears of")
    variables = {
        "router_neighbors": list(neighbors),
        "router_prefixes": list(prefixes),
        "gateway_node_forward_ipv6": forward,
    }
    templar = Templar(DataLoader(), variables=variables)

    def holds(condition: str) -> bool:
        return bool(templar.template(trust_as_template("{{ " + condition + " }}")))

    return all(map(holds, task["when"])) and not all(map(holds, task["ansible.builtin.assert"]["that"]))


@pytest.mark.parametrize(
    "neighbor", [OVER_IPV6, {**OVER_IPV4, "families": ["ipv4", "ipv6"]}, {**OVER_IPV4, "families": ["ipv6"]}]
)
def test_a_neighbour_that_hears_of_ipv6_is_enough(neighbor: dict[str, Any]) -> None:
    assert not refused(OVER_IPV4, neighbor)
    assert not refused(neighbor, prefixes=("203.0.113.0/24", "2001:db8:7::/48"))


@pytest.mark.parametrize("neighbor", [OVER_IPV4, {**OVER_IPV6, "families": ["ipv4"]}])
def test_a_node_that_forwards_ipv6_is_refused_without_one(neighbor: dict[str, Any]) -> None:
    assert refused(neighbor)
    assert not refused(neighbor, forward=False)


def test_it_is_refused_where_no_ipv6_route_may_be_announced() -> None:
    assert refused(OVER_IPV6, prefixes=("203.0.113.0/24",))


def test_where_something_else_announces_nothing_is_asked() -> None:
    assert not refused()
