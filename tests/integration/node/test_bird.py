# SPDX-License-Identifier: Apache-2.0
"""What two BIRDs say to each other: the one of the role router, and an upstream router's."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bird_site import (
    GATEWAY,
    GATEWAY6,
    NODE,
    NODE6,
    OUTSIDE_POOL,
    UPSTREAM,
    UPSTREAM6,
    Bird,
    Site,
    configuration,
    upstream_configuration,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("bird") is None, reason="needs BIRD"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def learned(bird: Bird) -> dict[str, str]:
    """The networks that the upstream has from the node, with their next hops."""
    found: dict[str, str] = {}
    network = ""
    for line in bird.ask("show route all protocol node").splitlines():
        words = line.split()
        if "unicast" in words:
            network = words[0]
        if words[:1] == ["BGP.next_hop:"]:
            found[network] = words[1]
    return found


def eventually(bird: Bird, wanted: dict[str, str]) -> float:
    """Wait until the upstream has exactly the wanted; how long that took."""
    begin = time.monotonic()
    while (found := learned(bird)) != wanted:
        assert time.monotonic() - begin < 20, (found, bird.ask("show protocols all node"))
        time.sleep(0.02)
    return time.monotonic() - begin


BOTH4 = {f"{GATEWAY}/32": NODE, f"{OUTSIDE_POOL}/32": NODE}
ALL6 = {f"{GATEWAY}/32": NODE6, f"{OUTSIDE_POOL}/32": NODE6, f"{GATEWAY6}/128": NODE6}


def test_over_ipv4_every_flag_route_and_nothing_else_is_announced(site: Site) -> None:
    upstream = site.start(configuration({"name": "r", "address": UPSTREAM}), upstream_configuration(NODE))
    eventually(upstream, BOTH4)


def test_over_ipv6_the_gateways_of_both_families_are(site: Site) -> None:
    upstream = site.start(configuration({"name": "r", "address": UPSTREAM6}), upstream_configuration(NODE6))
    eventually(upstream, ALL6)


@pytest.mark.parametrize(
    ("prefixes", "wanted"),
    [
        (["203.0.113.0/24"], {f"{GATEWAY}/32": NODE6}),
        (["2001:db8::/32"], {f"{GATEWAY6}/128": NODE6}),
        (["203.0.113.0/24", "2001:db8::/32"], {f"{GATEWAY}/32": NODE6, f"{GATEWAY6}/128": NODE6}),
    ],
)
def test_with_prefixes_only_what_is_in_them(site: Site, prefixes: list[str], wanted: dict[str, str]) -> None:
    node = configuration({"name": "r", "address": UPSTREAM6}, router_prefixes=prefixes)
    eventually(site.start(node, upstream_configuration(NODE6)), wanted)


@pytest.mark.parametrize("address", [UPSTREAM, UPSTREAM6])
def test_odd_names_passwords_and_ttl_security(site: Site, address: str) -> None:
    password = r"p;a}s { #'/*\ ü"
    neighbor = {"name": "spine-1.dc:2", "address": address, "password": password, "ttl_security": True}
    options = f'password "{password}"; ttl security on;'
    own = NODE6 if ":" in address else NODE
    upstream = site.start(configuration(neighbor), upstream_configuration(own, options))
    eventually(upstream, ALL6 if ":" in address else BOTH4)
    assert "upstream_spine-1.dc:2" in site.birds[1].ask("show protocols")


def test_a_withdrawal_is_at_the_router_at_once(site: Site) -> None:
    upstream = site.start(configuration({"name": "r", "address": UPSTREAM}), upstream_configuration(NODE))
    eventually(upstream, BOTH4)
    site.node.run(f"ip -4 route flush exact {GATEWAY}/32 proto 50 type blackhole table main")
    assert eventually(upstream, {f"{OUTSIDE_POOL}/32": NODE}) < 0.5
    site.node.run(f"ip route add blackhole {GATEWAY}/32 proto 50")
    assert eventually(upstream, BOTH4) < 0.5


@pytest.mark.parametrize("graceful", [False, True])
def test_a_bird_that_is_stopped_leaves_no_path_behind(site: Site, graceful: bool) -> None:
    node = configuration({"name": "r", "address": UPSTREAM}, router_graceful_restart=graceful)
    upstream = site.start(node, upstream_configuration(NODE))
    eventually(upstream, BOTH4)
    site.birds[1].stop()
    assert eventually(upstream, {}) < 0.5
    assert "Received: Administrative shutdown" in upstream.ask("show protocols all node")


@pytest.mark.parametrize(("graceful", "left"), [(False, {}), (True, BOTH4)])
def test_only_with_graceful_restart_paths_outlive_a_crash(
    site: Site, graceful: bool, left: dict[str, str]
) -> None:
    node = configuration({"name": "r", "address": UPSTREAM}, router_graceful_restart=graceful)
    upstream = site.start(node, upstream_configuration(NODE))
    eventually(upstream, BOTH4)
    site.birds[1].stop(signal.SIGKILL)
    begin = time.monotonic()
    while "Established" in upstream.ask("show protocols node"):
        assert time.monotonic() - begin < 10
        time.sleep(0.02)
    assert learned(upstream) == left
