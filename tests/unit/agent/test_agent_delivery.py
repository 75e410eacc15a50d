# SPDX-License-Identifier: Apache-2.0
"""Which routing rules a node of a kernel needs for delivery."""

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
