# SPDX-License-Identifier: Apache-2.0
"""What the agent reads and writes: settings, the stored state, nft's listing and commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent_samples import HTTP, PUBLIC, instance, instance_message
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf.message import Message

from epic.ads.snapshot import INSTANCE, LISTENER, versioned
from epic.agent.gateway.control import storage as gateway_storage
from epic.agent.gateway.control.storage import rows
from epic.agent.gateway.desired import Element
from epic.agent.gateway.firewall import commands, parse
from epic.agent.runtime import store
from epic.agent.runtime.store import Saver
from epic.agent.settings import GatewaySettings, load
from epic.errors import Invalid

GATEWAY = """
role: gateway
node_name: epic1
control: {address: "epic1:18000", pki: /c}
underlay: {interface: up0, address: 172.30.11.2}
"""
WORKLOAD = """
role: workload
node_name: node1
cluster: lab
underlay: {interface: up0, address: 192.168.50.11}
manifests: /etc/epic/manifests
"""


def write(path: Path, text: str) -> Path:
    (path / "agent.yaml").write_text(text, encoding="utf-8")
    return path / "agent.yaml"


def test_settings_have_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, GATEWAY))
    assert isinstance(settings, GatewaySettings)
    assert settings.run_directory == Path("/run/epic")
    assert settings.object.name == "gue.bpf.o"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(GATEWAY + "colour: red\n", "agent.yaml: colour: there is no such key", id="unknown"),
        pytest.param(WORKLOAD.replace("cluster: lab\n", ""), "cluster: is missing", id="missing"),
        pytest.param(WORKLOAD.replace("192.168.50.11", "here"), "underlay.address: ", id="address"),
        pytest.param(GATEWAY.replace("18000", "x"), "control.address: ", id="port"),
        pytest.param(
            GATEWAY.replace("interface: up0", "interfaces: []"), "either `interface`", id="no interface"
        ),
        pytest.param(GATEWAY.replace("up0", "up0, interfaces: [up1]"), "either `interface`", id="both"),
        pytest.param(
            GATEWAY.replace("interface: up0", "interfaces: [up0, up0]"),
            "names one twice: up0, up0",
            id="twice",
        ),
        pytest.param(GATEWAY.replace("up0", "up0, lanes: 2"), "underlay.lanes: there is no", id="role's"),
        pytest.param(
            WORKLOAD.replace("up0", "up0, lanes: 5"), "lanes: .* less than or equal to 4", id="lanes"
        ),
        pytest.param(WORKLOAD.replace("up0", "up0, receive: gro"), "receive: .*'tc' or 'xdp'", id="receive"),
        pytest.param(WORKLOAD.replace("up0", "up0, delivery: x"), "'stack' or 'pods'", id="delivery"),
        pytest.param(WORKLOAD.replace("192.168.50.11", "'::'"), "no address of a host", id="unspecified"),
        pytest.param("role: router\n", "role: must be `gateway`", id="role"),
        pytest.param("node_name: x\n", "role: must be `gateway`", id="no role"),
        pytest.param("[]", "must be a mapping", id="no mapping"),
        pytest.param("a: [", "is not YAML", id="no yaml"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        load(write(tmp_path, text))


def test_an_underlay_has_one_or_more_interfaces_and_need_not_have_an_address(tmp_path: Path) -> None:
    assert load(write(tmp_path, GATEWAY)).underlay.names == ("up0",)
    text = WORKLOAD.replace("interface: up0, address: 192.168.50.11", "interfaces: [up0, up1], lanes: 4")
    underlay = load(write(tmp_path, text)).underlay
    assert (underlay.names, underlay.address, underlay.receive) == (("up0", "up1"), None, "tc")


def test_missing_settings_are_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        load(tmp_path / "agent.yaml")


def row(message: Message) -> store.Row:
    resource = versioned(message)
    return resource.version, resource.body.value


def test_what_was_stored_comes_back_with_its_versions(tmp_path: Path) -> None:
    listener = row(Listener(name="http"))
    store.write(tmp_path, {(INSTANCE, "shop.web"): row(instance_message(revision="r" * 1000))})
    store.write(tmp_path, {(LISTENER, "shop.web/http"): listener, (LISTENER, "shop.web/https"): listener})
    store.write(
        tmp_path, {(INSTANCE, "shop.web"): row(instance_message()), (LISTENER, "shop.web/https"): None}
    )
    held = gateway_storage.load(tmp_path)
    assert held is not None
    assert held.complete
    assert held.instances == {"shop.web": instance()}
    assert held.parts["shop.web"][LISTENER] == {"http": versioned(Listener(name="http"))}
    assert held.versions(LISTENER) == {"shop.web/http": versioned(Listener(name="http")).version}


def test_damaged_state_counts_as_none_and_does_not_stay(tmp_path: Path) -> None:
    assert gateway_storage.load(tmp_path) is None
    good = {(INSTANCE, "shop.web"): row(instance_message())}
    store.write(tmp_path, good)
    whole = (tmp_path / store.FILE).read_bytes()
    for damaged in (b"", b"\xff" * 5000, whole[:-4096], whole[:4096] + b"\xff" * 4096):
        (tmp_path / store.FILE).write_bytes(damaged)
        assert gateway_storage.load(tmp_path) is None
        store.write(tmp_path, good)
        assert gateway_storage.load(tmp_path) is not None


def test_state_that_makes_no_sense_counts_as_none(tmp_path: Path) -> None:
    store.write(tmp_path, {(INSTANCE, "shop.other"): row(instance_message())})
    assert gateway_storage.load(tmp_path) is None


@asynccontextmanager
async def saving(directory: Path) -> AsyncIterator[Saver]:
    saver = Saver(directory)
    task = asyncio.create_task(saver.run())
    await asyncio.sleep(0)
    yield saver
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    saver.close()


async def test_state_is_written_at_the_end_for_root_only(tmp_path: Path) -> None:
    async with saving(tmp_path) as saver:
        saver.save(rows(INSTANCE, {"shop.web": versioned(instance_message())}))
        saver.flush()
    held = gateway_storage.load(tmp_path)
    assert held is not None
    assert held.instances.keys() == {"shop.web"}
    assert (tmp_path / store.FILE).stat().st_mode & 0o777 == 0o600


async def test_a_part_of_what_is_wanted_is_not_written(tmp_path: Path) -> None:
    async with saving(tmp_path) as saver:
        saver.save(rows(INSTANCE, {"shop.web": versioned(instance_message())}))
    assert gateway_storage.load(tmp_path) is None


async def test_changes_are_written_one_after_the_other(tmp_path: Path) -> None:
    async with saving(tmp_path) as saver:
        for number in range(20):
            saver.save(rows(INSTANCE, {"shop.web": versioned(instance_message(revision=f"r{number}"))}))
            saver.flush()
            await asyncio.sleep(0.01)
        saver.save(rows(INSTANCE, {}, ["shop.web"]))
        saver.flush()
    held = gateway_storage.load(tmp_path)
    assert held is not None
    assert held.instances == {}


def test_nfts_listing_is_read() -> None:
    elements = [{"concat": [str(PUBLIC), "tcp", 80]}, {"concat": [str(PUBLIC), "udp", 53]}]
    listing = json.dumps({"nftables": [{"metainfo": {}}, {"set": {"name": "x", "elem": elements}}]})
    assert set(parse(listing)) == {HTTP, Element(PUBLIC, "udp", 53)}
    assert set(parse(json.dumps({"nftables": [{"set": {"name": "x"}}]}))) == set()


def test_changes_of_ports_are_one_script() -> None:
    assert commands([HTTP], [Element(PUBLIC, "udp", 53)]) == (
        "delete element inet epic gateway_ports { 203.0.113.7 . udp . 53 }\n"
        "add element inet epic gateway_ports { 203.0.113.7 . tcp . 80 }\n"
    )
