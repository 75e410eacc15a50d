# SPDX-License-Identifier: Apache-2.0
"""Statuses as files: what became of each object, which document is wrong, and nothing written twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from manifests import SHOP

from epic.client import EpicClient
from epic.controller.linux import CONFIRMATION, HostSettings, LinuxController
from epic.controller.mirror.observed import seen_of
from epic.controller.mirror.statuses import file_name


@pytest.fixture
def host(tmp_path: Path) -> HostSettings:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    return HostSettings(
        manifests, "lab", "node1", "192.168.50.11", None, tmp_path / "made.json", tmp_path / "status"
    )


@pytest.fixture
def controller(host: HostSettings, admin: EpicClient, monkeypatch: pytest.MonkeyPatch) -> LinuxController:
    monkeypatch.setattr(LinuxController, "_client_of", lambda *_: admin)
    return LinuxController(host)


def _status(host: HostSettings, name: str) -> dict[str, Any]:
    return dict(json.loads((host.statuses / name).read_text()))


def _reason(host: HostSettings, name: str) -> str:
    (condition,) = _status(host, name)["status"]["conditions"]
    return str(condition["reason"])


async def test_an_object_of_which_something_is_for_others_is_mirrored_and_says_so(
    host: HostSettings, controller: LinuxController
) -> None:
    mesh = "{group: '', kind: Service, name: web, port: 80}"
    text = SHOP.replace("parentRefs: [{name: web}]", f"parentRefs: [{{name: web}}, {mesh}]")
    (host.manifests / "shop.yaml").write_text(text)
    assert await controller._resync(None)
    (condition,) = _status(host, "HTTPRoute.shop.web.json")["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("True", "UnsupportedValue")
    assert "parents of kind Service are not served" in condition["message"]


async def test_each_object_has_a_file_and_a_gateways_has_its_address(
    host: HostSettings, controller: LinuxController
) -> None:
    file = host.manifests / "shop.yaml"
    file.write_text(SHOP)
    assert await controller._resync(None)
    assert sorted(path.name for path in host.statuses.iterdir()) == [
        "EndpointSlice.shop.web.json",
        "Gateway.shop.web.json",
        "GatewayClass.epic.json",
        "GatewayClassConfig.shop.epic.json",
        "HTTPRoute.shop.web.json",
        "Service.shop.web.json",
    ]
    gateway = _status(host, "Gateway.shop.web.json")
    assert (gateway["object"], gateway["source"], gateway["document"]) == ("Gateway shop/web", str(file), 3)
    assert gateway["status"]["epic"]["spec"]["public-address"] == "203.0.113.0"
    assert {c["type"] for c in gateway["status"]["epic"]["status"]["conditions"]}
    assert _reason(host, "HTTPRoute.shop.web.json") == "Mirrored"
    assert "secret" not in "".join(path.read_text() for path in host.statuses.iterdir())


def test_a_gateways_second_address_is_told_too() -> None:
    addresses = {"public-address": "203.0.113.0", "alt-address": "2001:db8::1"}
    assert seen_of("proxies", {"spec": addresses}).answer["spec"] == addresses
    shared = {"status": {"gateway": {**addresses, "alt-address": ""}}}
    assert seen_of("members", shared).answer["spec"] == {"public-address": "203.0.113.0"}


async def test_a_bad_document_is_named_and_its_file_goes_when_it_is_right_again(
    host: HostSettings, controller: LinuxController, caplog: pytest.LogCaptureFixture
) -> None:
    file = host.manifests / "shop.yaml"
    file.write_text(
        SHOP + "---\nkind: [\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: y}\n"
    )
    assert await controller._resync(None)
    assert f"{file}: document 7: document: is not YAML" in caplog.text
    (name,) = (path.name for path in host.statuses.iterdir() if path.name.startswith("document."))
    (condition,) = _status(host, name)["status"]["conditions"]
    assert condition["message"].startswith(f"{file}: document 7: is not YAML: line ")
    file.write_text(SHOP)
    assert await controller._resync({file})
    assert len(list(host.statuses.iterdir())) == 6


async def test_files_are_written_only_when_they_change_also_by_another_process(
    host: HostSettings, controller: LinuxController
) -> None:
    (host.manifests / "shop.yaml").write_text(SHOP)
    await controller._resync(None)
    (host.statuses / "HTTPRoute.shop.old.json").write_text("{}")

    def written() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in host.statuses.iterdir()}

    before = written()
    await controller._resync(None)
    assert written() == before
    await LinuxController(host)._resync(None)
    del before["HTTPRoute.shop.old.json"]
    assert written() == before
    changed = SHOP.replace("addresses: [192.168.50.11]", "addresses: [192.168.50.12]")
    (host.manifests / "shop.yaml").write_text(
        changed.replace("hostnames: [shop.example.net]", "hostnames: []")
    )
    await controller._resync(None)
    assert {name for name, inode in written().items() if before[name] != inode} == set()


async def test_what_epic_refuses_is_told_at_the_object(
    host: HostSettings, controller: LinuxController, admin: EpicClient
) -> None:
    (host.manifests / "shop.yaml").write_text(SHOP.replace("gateway-template: http", "gateway-template: tcp"))
    assert not await controller._resync(None)
    assert _reason(host, "Gateway.shop.web.json") == "NotFound"
    admin.put("/api/epic/accounts/shop/groups/tcp", {"group": {"spec": {"service-prefix": "default"}}})
    assert await controller._resync(set())
    assert _reason(host, "Gateway.shop.web.json") == "Mirrored"


async def test_held_removals_are_told_and_confirmed_by_a_file(
    host: HostSettings, controller: LinuxController, admin: EpicClient, caplog: pytest.LogCaptureFixture
) -> None:
    (host.manifests / "shop.yaml").write_text(SHOP)
    await controller._resync(None)
    host.manifests.rename(host.manifests.with_name("mounted"))
    assert not await controller._resync(None)
    host.manifests.mkdir()
    assert await controller._resync(None)
    assert len(admin.get("/api/epic/accounts/shop/routes")["items"]) == 1
    marker = host.statuses / CONFIRMATION
    assert f"if that is meant, create {marker}" in _status(host, "removals-held.json")["message"]
    assert "the directory is another one" in caplog.text
    marker.touch()
    await controller._resync(None)
    assert admin.get("/api/epic/accounts/shop/routes")["items"] == []
    assert not marker.exists()
    assert not (host.statuses / "removals-held.json").exists()


async def test_statuses_that_cannot_be_written_stop_nothing(
    host: HostSettings, controller: LinuxController, admin: EpicClient, caplog: pytest.LogCaptureFixture
) -> None:
    host.statuses.write_text("in the way")
    (host.manifests / "shop.yaml").write_text(SHOP)
    assert await controller._resync(None)
    assert len(admin.get("/api/epic/accounts/shop/routes")["items"]) == 1
    assert "statuses cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("HTTPRoute shop/web", "HTTPRoute.shop.web.json"),
        ("HTTPRoute a.b/c.d", "HTTPRoute.a%2Eb.c.d.json"),
        ("HTTPRoute shop/../../etc", "HTTPRoute.shop...%2F..%2Fetc.json"),
        ("GatewayClass epic", "GatewayClass.epic.json"),
    ],
)
def test_file_names_are_one_an_object_and_stay_in_the_directory(name: str, file: str) -> None:
    assert file_name(name) == file


def test_long_names_have_files_too() -> None:
    one, two = (file_name(f"HTTPRoute shop/{'x' * 300}{i}") for i in range(2))
    assert one != two
    assert max(len(one), len(two)) < 255
