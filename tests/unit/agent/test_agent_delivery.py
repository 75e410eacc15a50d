# SPDX-License-Identifier: Apache-2.0
"""Which routing rules a node of a kernel needs for delivery, and whether it forwards IPv6."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from epic.agent.gateway import delivery


@pytest.mark.parametrize(
    ("has_ipv6", "families"), [(True, [socket.AF_INET, socket.AF_INET6]), (False, [socket.AF_INET])]
)
def test_there_is_a_rule_for_each_family_that_the_kernel_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_ipv6: bool, families: list[int]
) -> None:
    forwarding = tmp_path / "forwarding"
    if has_ipv6:
        forwarding.write_text("0\n", encoding="ascii")
    monkeypatch.setattr(delivery, "_FORWARDING6", forwarding)
    assert [rule.family for rule in delivery.rules()] == families


@pytest.mark.parametrize(("says", "forwards"), [("1\n", True), ("0\n", False), (None, False)])
def test_a_kernel_without_ipv6_forwards_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str | None, forwards: bool
) -> None:
    forwarding = tmp_path / "forwarding"
    if says is not None:
        forwarding.write_text(says, encoding="ascii")
    monkeypatch.setattr(delivery, "_FORWARDING6", forwarding)
    assert delivery.forwards6() == forwards
