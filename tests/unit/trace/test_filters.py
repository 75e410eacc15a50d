# SPDX-License-Identifier: Apache-2.0
"""The command line of epic-trace."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from epic.trace import filters


def test_filters_become_definitions() -> None:
    options = filters.parse(["--tunnel", "7", "--port", "80", "--protocol", "icmp", "--drops"])
    assert options.filters.definitions() == [
        "-DWANT_TUNNEL=7",
        "-DWANT_PORT=80",
        "-DWANT_PROTOCOL=1",
        "-DWANT_PROTOCOL6=58",
        "-DWANT_INNER",
        f"-DWANT_NAMESPACE(n)=((n)=={Path('/proc/self/ns/net').stat().st_ino})",
        "-DWANT_DROPS",
    ]


def test_several_namespaces_may_be_wanted() -> None:
    assert filters.Filters(namespaces=(1, 2)).definitions() == ["-DWANT_NAMESPACE(n)=((n)==1||(n)==2)"]
    assert filters.Filters().definitions() == ["-DWANT_NAMESPACE(n)=(1)"]


def test_ipv4_hosts_are_compared_as_mapped_ones() -> None:
    assert filters.words(ip_address("192.0.2.1")) == filters.words(ip_address("::ffff:192.0.2.1"))


@pytest.mark.parametrize(
    "wrong",
    [
        ["--port", "70000"],
        ["--interface", "x" * 16],
        ["--host", "nobody"],
        ["--duration", "0"],
        ["--namespace", "/nowhere"],
    ],
)
def test_mistakes_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        filters.parse(wrong)
