# SPDX-License-Identifier: Apache-2.0
"""`epicctl tunnels`: the table, the other formats, and rotation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from epic.cli.commands import tunnels
from epic.cli.main import app
from epic.cli.printing import output
from epic.live import End, Place, RoundTrip, SecondChance, epic_place, workload_place
from epic.model.base import Metadata, now
from epic.model.resources import Account, Tunnel
from epic.rotation import NOTHING, Holds

Epicctl = Callable[..., Result]


@pytest.fixture
def epicctl(tmp_path: Path, live_api: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Epicctl]:
    config = tmp_path / "epicctl.yaml"
    content = {"server": live_api.url, "username": live_api.username, "password": live_api.password}
    config.write_text(yaml.safe_dump(content))
    config.chmod(0o600)
    # The console writes to where standard output is at its making.
    monkeypatch.setattr(output.console, "_file", None)
    yield lambda *arguments: CliRunner().invoke(app, ["--config", str(config), *arguments])


@pytest.fixture
def tunnel(live_api: Any) -> Tunnel:
    spec = {
        "proxy": "U1",
        "service": 1,
        "epic-node": "epic1",
        "inside-address": "100.64.0.1",
        "cluster-id": "lab",
        "node-name": "node1",
        "node-address": "192.168.50.11",
        "keys": [{"epoch": 1, "secret": "00" * 16}],
        "signing-epoch": 1,
        "signing-since": now(),
    }
    made = Tunnel.model_validate({"metadata": {"name": "7", "namespace": "shop"}, "spec": spec})
    with live_api.store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name="shop")))
        return transaction.create(made)


def speak(live_api: Any, tunnel: Tunnel, age: float = 2) -> None:
    keys = Holds(frozenset({1}), 1)
    epic = End(keys, rx_packets=12, rx_bytes=3_400_000, hello_age=age, observed=("198.51.100.7", 40000))
    workload = End(keys, hello_age=age, round_trip=RoundTrip(0.002, 0.001, 0.0015), loss=0.25)
    live_api.live.take(epic_place(tunnel), {7: epic}, {"tag_wrong": 3})
    live_api.live.take(workload_place(tunnel), {7: workload}, {})


def test_the_table_shows_how_a_tunnel_is(epicctl: Epicctl, live_api: Any, tunnel: Tunnel) -> None:
    speak(live_api, tunnel)
    result = epicctl("tunnels")
    assert result.exit_code == 0, result
    titles, line, dropped = result.output.splitlines()
    assert titles.split("  ")[0] == "TUNNEL"
    for words in (
        "7",
        "shop.U1",
        "epic1",
        "lab/node1",
        "up",
        "198.51.100.7:40000",
        "yes",
        "2.00/1.50 ms",
        "25.0 %",
        "3.4 MB (12)",
        "0 B (0)",
    ):
        assert words in [cell.strip() for cell in line.split("  ")], (words, line)
    # It was said two seconds before it was asked for, however long that took.
    assert re.search(r"  ([2-9]|\d\d+)s  +1 \(\d+s\)$", line), line
    assert dropped == "epic1 dropped: tag_wrong 3"


def test_the_port_stands_apart_from_an_ipv6_address(epicctl: Epicctl, live_api: Any, tunnel: Tunnel) -> None:
    live_api.live.take(epic_place(tunnel), {7: End(NOTHING, observed=("2001:db8::7", 6080))}, {})
    assert " [2001:db8::7]:6080 " in epicctl("tunnels").output
    (shown,) = json.loads(epicctl("tunnels", "-o", "json").output)["items"]
    assert shown["inside-address6"] == "fd65:7069:6300::6440:1"


def test_what_is_not_known_is_a_dash_and_what_is_down_is_said(
    epicctl: Epicctl, live_api: Any, tunnel: Tunnel
) -> None:
    assert " unknown  -  " in epicctl("tunnels", "-A", "shop").output
    speak(live_api, tunnel, age=200)
    assert " down " in epicctl("tunnels", "-A", "shop").output
    assert "3m" in epicctl("tunnels").output


def test_other_formats_give_all_there_is(epicctl: Epicctl, live_api: Any, tunnel: Tunnel) -> None:
    speak(live_api, tunnel)
    shown = json.loads(epicctl("tunnels", "-o", "json").output)
    assert shown["items"][0]["workload-end"]["round-trip"]["min"] == 0.001
    assert yaml.safe_load(epicctl("tunnels", "-o", "yaml").output)["nodes"][0]["drops"] == {"tag_wrong": 3}


def test_without_tunnels_there_are_none(epicctl: Epicctl) -> None:
    assert epicctl("tunnels").output == "There are no tunnels.\n"


def test_watching_repeats_the_table(
    epicctl: Epicctl, live_api: Any, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(live_api, tunnel)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(tunnels.time, "sleep", pause)
    result = epicctl("tunnels", "--watch")
    assert "198.51.100.7:40000" in result.output
    assert pauses == [2, 2]


def test_watching_is_for_tables(epicctl: Epicctl) -> None:
    result = epicctl("tunnels", "--watch", "-o", "json")
    assert "--watch shows a table" in str(result.exception)


def test_rotation_says_what_has_begun_and_what_is_in_the_way(
    epicctl: Epicctl, live_api: Any, tunnel: Tunnel
) -> None:
    refused = epicctl("tunnels", "rotate")
    assert refused.exit_code == 1
    assert refused.output.splitlines()[-1].endswith("see epicctl tunnels: 7")
    speak(live_api, tunnel)
    begun = epicctl("tunnels", "rotate")
    assert (begun.exit_code, begun.output) == (
        0,
        "Rotation of 1 tunnels has begun, of 0 was under way.\n",
    )
    shown = epicctl("tunnels").output
    assert re.search(r"1 \(\ds\), rotating, waits for epic1, lab/node1", shown)


def test_second_chances_are_shown_where_there_were_any(
    epicctl: Epicctl, live_api: Any, tunnel: Tunnel
) -> None:
    chances = {
        "shop.web": SecondChance(hits=7, passed_on=3, learned=2, over_budget=1),
        "shop.idle": SecondChance(hits=9),
    }
    live_api.live.take(epic_place(tunnel), {}, {}, second_chances=chances)
    *_, titles, line = epicctl("tunnels").output.splitlines()
    assert " ".join(titles.split()) == ("GATEWAY EPIC NODE HITS PASSED-ON LEARNED CHAIN-ENDS OVER-BUDGET")
    assert line.split() == ["shop.web", "epic1", "7", "3", "2", "0", "1"]
    shown = json.loads(epicctl("tunnels", "-A", "shop", "-o", "json").output)["second-chances"]
    assert [chance["gateway"] for chance in shown] == ["shop.idle", "shop.web"]


def test_a_node_of_a_client_is_named_with_its_cluster() -> None:
    place = Place("shop", "lab", "node1")
    node = {"account": place.account, "cluster": place.cluster, "node": place.node, "drops": {"too_big": 1}}
    assert [line.plain for line in tunnels.drop_lines([node])] == ["lab/node1 dropped: too_big 1"]
