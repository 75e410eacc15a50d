# SPDX-License-Identifier: Apache-2.0
"""An underlay interface is in use only while all programs of the role run on it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from epic.agent.netlink.objects import Link, Netlink
from epic.agent.settings import UnderlaySettings
from epic.agent.tunnel.underlay import Underlay
from epic.bpf.dataplane import Dataplane, Role
from epic.bpf.programs.filters import Hook

LINKS = {"up0": Link(7, 1500, "veth", up=True)}


class Kernel:
    """One interface on which only some filters stay, whatever is attached."""

    def __init__(self, *staying: Hook) -> None:
        self._staying = staying

    def addresses(self) -> dict[int, tuple[Any, ...]]:
        return {}

    def links(self) -> dict[str, Link]:
        return LINKS

    def filters(self, index: int) -> frozenset[tuple[Hook, str]]:
        assert index == 7
        return frozenset((hook, f"program_{hook}") for hook in self._staying)

    def is_linked(self, index: int) -> bool:
        return index == 7

    def attach_underlay(self, interface: str, role: Role, receive: str) -> None:
        assert (interface, receive) == ("up0", "tc")


def follow(role: Role, *staying: Hook) -> Underlay:
    kernel = Kernel(*staying)
    settings = UnderlaySettings(interface="up0")
    underlay = Underlay(cast("Dataplane", kernel), cast("Netlink", kernel), settings, role)
    underlay.follow(LINKS)
    return underlay


@pytest.mark.parametrize("role", ["gateway", "workload"])
def test_an_interface_with_all_programs_is_in_use(role: Role) -> None:
    underlay = follow(role, "ingress", "egress")
    assert (list(underlay.links), underlay.gap, underlay.troubled) == (["up0"], "", False)


@pytest.mark.parametrize("staying", ["ingress", "egress"])
@pytest.mark.parametrize("role", ["gateway", "workload"])
def test_one_that_loses_a_program_at_once_is_not(role: Role, staying: Hook) -> None:
    underlay = follow(role, staying)
    assert (list(underlay.links), underlay.troubled) == ([], True)
    assert "do not run on up0" in underlay.gap
