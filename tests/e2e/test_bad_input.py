# SPDX-License-Identifier: Apache-2.0
"""Wrong requests get the right status and a message that helps; failed runs repair themselves."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import yaml
from conftest import GROUP, PROXIES, condition, ready_instances
from hosts import CREDENTIAL, Lab, eventually

from epic.client import EpicClient


@pytest.fixture(scope="module")
def credential() -> dict[str, str]:
    text: dict[str, str] = yaml.safe_load(CREDENTIAL.read_text())
    return text


@pytest.fixture(scope="module")
def raw(credential: dict[str, str]) -> Callable[..., requests.Response]:
    """One HTTP request, redirects not followed."""

    def send(
        method: str, path: str, *, user: tuple[str, str] | None = None, **options: Any
    ) -> requests.Response:
        return requests.request(
            method,
            credential["server"] + path,
            auth=user or (credential["username"], credential["password"]),
            verify=credential["ca-file"],
            timeout=10,
            allow_redirects=False,
            **options,
        )

    return send


@pytest.fixture(scope="module")
def stranger(api: EpicClient) -> Iterator[tuple[str, str]]:
    """A user of an account that owns nothing."""
    api.post("/api/epic/accounts", {"account": {"metadata": {"name": "stranger"}, "spec": {}}})
    user = ("mallory", "correct-horse-battery")
    api.post("/api/epic/accounts/stranger/users", {"user": {"name": user[0], "password": user[1]}})
    yield user
    api.delete("/api/epic/accounts/stranger")


def proxy_body() -> dict[str, Any]:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    return {
        "proxy": {
            "spec": {
                "clientRef": {"clusterID": "c", "namespace": "n", "name": "bad", "uid": str(uuid.uuid4())},
                "public-ports": [{"name": "http", "port": 80}],
                "gateway": {"gatewayClassName": "epic", "listeners": [listener]},
            }
        }
    }


def test_an_unknown_template_is_404_and_the_message_lists_those_there_are(
    raw: Callable[..., requests.Response],
) -> None:
    reply = raw("POST", "/api/epic/accounts/shop/groups/nonsense/proxies", json=proxy_body())
    assert reply.status_code == 404
    assert "nonsense" in reply.json()["error"]
    assert "http" in reply.json()["error"].replace("nonsense", "")
    assert reply.headers["x-epic-error-message"]


def test_malformed_json_is_400_and_says_where(raw: Callable[..., requests.Response]) -> None:
    reply = raw("POST", f"{GROUP}/proxies", data="{", headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert "JSON" in reply.json()["error"]


def test_a_wrong_password_is_401_with_the_realm(raw: Callable[..., requests.Response]) -> None:
    reply = raw("GET", PROXIES, user=("admin", "guess"))
    assert reply.status_code == 401
    assert 'realm="epicauth"' in reply.headers["www-authenticate"]


def test_another_accounts_objects_are_403_whether_they_exist_or_not(
    raw: Callable[..., requests.Response], stranger: tuple[str, str], web: dict[str, Any]
) -> None:
    there = raw("GET", f"{PROXIES}/{web['metadata']['name']}", user=stranger)
    nowhere = raw("GET", "/api/epic/accounts/no-such-account/proxies/x", user=stranger)
    assert there.status_code == nowhere.status_code == 403
    assert "stranger" in there.json()["error"]


def test_an_exhausted_pool_is_503_names_the_pool_and_leaves_nothing(
    raw: Callable[..., requests.Response], api: EpicClient
) -> None:
    api.post(
        "/api/epic/service-prefixes",
        {
            "service-prefix": {
                "metadata": {"name": "tiny"},
                "spec": {"public-pool": {"pool": "198.51.100.1-198.51.100.1", "subnet": "198.51.100.0/24"}},
            }
        },
    )
    group = {"metadata": {"name": "tiny"}, "spec": {"service-prefix": "tiny"}}
    api.post("/api/epic/accounts/shop/groups", {"group": group})
    path = "/api/epic/accounts/shop/groups/tiny"
    first, second = proxy_body(), proxy_body()
    try:
        assert raw("POST", f"{path}/proxies", json=first).status_code == 302
        reply = raw("POST", f"{path}/proxies", json=second)
        assert reply.status_code == 503
        assert "tiny" in reply.json()["error"]
        assert raw("GET", f"{PROXIES}/{second['proxy']['spec']['clientRef']['uid']}").status_code == 404
    finally:
        gateway = f"{PROXIES}/{first['proxy']['spec']['clientRef']['uid']}"
        api.delete(gateway)
        eventually(lambda: api.find(gateway) is None, within=30, what="the gateway gone")
        api.delete(path)
        api.delete("/api/epic/service-prefixes/tiny")


def test_a_run_whose_node_is_down_is_told_to_tenant_and_operator_and_repaired_by_a_later_run(
    api: EpicClient, make_gateway: Callable[..., dict[str, Any]], frozen: Callable[[str], Any]
) -> None:
    with frozen("epic2"):
        name = make_gateway()["metadata"]["name"]

        def failed() -> re.Match[str] | None:
            found = condition(api.get(f"{PROXIES}/{name}")["proxy"], "Programmed")
            message = found.get("message", "") if found.get("reason") == "RunFailed" else ""
            return re.fullmatch(r"run (\d+) failed on a node; the platform's operators can see why", message)

        told = eventually(failed, within=60, what="the condition that tells of the failed run")
        run = api.get(f"/api/epic/runs/{told[1]}")["run"]
        assert list(run["status"]["nodes"]) == ["epic2"]

    def repaired() -> bool:
        proxy = api.get(f"{PROXIES}/{name}")["proxy"]
        done = condition(proxy, "Programmed").get("status") == "True"
        return done and all(i["announced"] for i in proxy["status"]["instances"])

    eventually(repaired, within=90, what="the gateway programmed and announced on both nodes")


def test_a_node_that_hangs_delays_no_other_though_the_control_plane_starts_again(
    lab: Lab,
    api: EpicClient,
    make_gateway: Callable[..., dict[str, Any]],
    frozen: Callable[[str], Any],
) -> None:
    def until_served(name: str) -> None:
        eventually(
            lambda: "epic1" in ready_instances(api, name).values(),
            within=20,
            what=f"{name} elsewhere",
        )

    with frozen("epic2"):
        names = [make_gateway()["metadata"]["name"] for _ in range(2)]
        for name in names:
            until_served(name)
        lab["epic1"].run("systemctl restart epic-control")
        until_served(make_gateway()["metadata"]["name"])
    for name in names:
        eventually(
            lambda name=name: len(ready_instances(api, name)) == 2, within=90, what=f"{name} on both nodes"
        )
