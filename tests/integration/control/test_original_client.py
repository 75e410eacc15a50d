# SPDX-License-Identifier: Apache-2.0
"""What the client of the original EPIC relies on, asked of epic-control in the words of that client.

Its requests are here as it sends them. `EPIC_ORIGINAL_CLIENT=FILE`: the tests of that client, compiled by
`go test -c` from its own package, are run as they are, too.
"""

from __future__ import annotations

import os
import re
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_process import API, ControlProcess
from control_stores import ENGINES, store_of

_COMPILED = os.environ.get("EPIC_ORIGINAL_CLIENT")
_HOST = "gwdev-ctl"
_ACCOUNT, _GROUP = f"{API}/accounts/root", f"{API}/accounts/root/groups/gatewayhttp"
_UID = "a044f348-f80c-4ac0-b911-6ed45e37994a"
# One that is being deleted cannot be announced, and the client's own tests announce one of the other UID.
_GATEWAY = "a044f348-f80c-4ac0-b911-6ed45e37994c"
_MOST_REDIRECTS = 2


@pytest.fixture(scope="module", params=ENGINES)
def control(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlProcess]:
    """epic-control with the account, the template and the user that the client's tests are written for."""
    directory = tmp_path_factory.mktemp(request.param)
    with store_of(request.param, directory) as location:
        control = ControlProcess(directory / "control", location)
        control.prepare()
        control.start()
        try:
            _prepare(control)
            yield control
        finally:
            control.stop()


def _prepare(control: ControlProcess) -> None:
    with control.client() as admin:
        for path, body in {
            f"{API}/accounts": {"account": {"metadata": {"name": "root"}}},
            f"{_ACCOUNT}/groups": {
                "group": {"metadata": {"name": "gatewayhttp"}, "spec": {"service-prefix": "p"}}
            },
            f"{_ACCOUNT}/users": {"user": {"name": "user1", "password": "password1"}},
        }.items():
            reply = admin.post(path, json=body)
            assert reply.status_code in {200, 302}, reply.text


@pytest.fixture
def client(control: ControlProcess) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(control.pki / "ca.crt"))
    with httpx.Client(
        base_url=f"https://127.0.0.1:{control.port}",
        auth=("user1", "password1"),
        verify=context,
        headers={"Accept": "application/json"},
        follow_redirects=True,
        max_redirects=_MOST_REDIRECTS,
        timeout=60,
    ) as client:
        yield client


def announced(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the client has of an object that it announced; one that is there is as good."""
    reply = client.post(path, json=body)
    if reply.status_code == 409:
        reply = client.get(reply.headers["Location"])
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "application/json"
    content: dict[str, Any] = reply.json()
    return content


def links(client: httpx.Client) -> dict[str, str]:
    """Those of the account, found as the client finds them; and `create-proxy`."""
    group = client.get(_GROUP).json()
    account = client.get(group["link"]["account"]).json()
    found: dict[str, str] = {**account["link"], "create-proxy": group["link"]["create-proxy"]}
    return found


def client_ref(**names: str) -> dict[str, str]:
    return {"clusterID": "unit-test", "namespace": "puregw", "name": "gatewayhttp", "uid": _UID, **names}


def proxy() -> dict[str, Any]:
    listener = {"name": "listener80", "port": 80, "protocol": "HTTP"}
    port = {"name": "listener80", "protocol": "TCP", "port": 80, "targetPort": 0}
    spec = {
        "clientRef": client_ref(namespace="test-ns", name="test-name", uid=_GATEWAY),
        "display-name": "test-name",
        "public-ports": [port],
        "gue-tunnel-endpoints": None,
        "gateway": {"gatewayClassName": "", "listeners": [listener]},
    }
    return {"proxy": {"metadata": {"name": "", "namespace": ""}, "spec": spec, "status": {}}}


def piece() -> dict[str, Any]:
    service = {"namespace": "test-ns", "name": "test-service", "uid": _UID[:-1] + "b"}
    spec = {
        "clientRef": client_ref(),
        "parentRef": service,
        "metadata": {"creationTimestamp": None},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.42.27.42"], "conditions": {}, "nodeName": "mk8s1"}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "nodeAddresses": {"mk8s1": "192.168.254.101"},
    }
    return {"slice": {"spec": spec}}


def route(**spec: Any) -> dict[str, Any]:
    return {"route": {"metadata": {"name": "", "namespace": ""}, "spec": {"clientRef": client_ref(), **spec}}}


def test_group_and_account_are_read_by_their_links(client: httpx.Client) -> None:
    group = client.get(_GROUP).json()
    assert group["group"]["metadata"]["name"] == "gatewayhttp"
    assert group["link"]["self"] == _GROUP
    assert group["link"]["create-proxy"] == f"{_GROUP}/proxies"
    account = client.get(group["link"]["account"])
    assert account.status_code == 200
    assert account.json()["account"]["metadata"]["name"] == "root"
    assert account.json()["link"]["create-route"] == f"{_ACCOUNT}/routes"
    assert account.json()["link"]["create-slice"] == f"{_ACCOUNT}/slices"


def test_gateway_is_announced_twice_and_has_what_the_client_reads_back(client: httpx.Client) -> None:
    path = links(client)["create-proxy"]
    content = announced(client, path, proxy())
    assert content["link"] == {"self": f"{_ACCOUNT}/proxies/{_GATEWAY}", "group": _GROUP}
    spec = content["proxy"]["spec"]
    assert spec["public-address"] == "203.0.113.0"
    assert re.fullmatch(r"test-name-test-ns-root-[0-9a-f]+\.example\.net", spec["endpoints"][0]["dnsName"])
    assert spec["gue-tunnel-endpoints"] == {}
    assert announced(client, path, proxy())["link"] == content["link"]
    deleted = client.delete(content["link"]["self"])
    assert (deleted.status_code, deleted.json()) == (200, {"message": "delete successful"})


def test_slice_is_announced_changed_and_deleted_by_its_link(client: httpx.Client) -> None:
    path = links(client)["create-slice"]
    content = announced(client, path, piece())
    itself = content["link"]["self"]
    assert itself == f"{_ACCOUNT}/slices/{_UID}"
    assert announced(client, path, piece()) == content
    changed = piece()
    changed["slice"]["spec"]["endpoints"] = []
    reply = client.put(itself, json=changed)
    assert (reply.status_code, reply.json()["slice"]["spec"]["endpoints"]) == (200, [])
    for _ in range(2):
        deleted = client.delete(itself)
        assert (deleted.status_code, deleted.json()) == (200, {"message": "delete successful"})
    assert client.get(itself).status_code == 404


@pytest.mark.parametrize(
    "spec", [{"http": {"hostnames": ["test-host", "other-host"]}}, {"tcp": {"rules": []}}]
)
def test_route_is_announced_changed_and_deleted_by_its_link(
    client: httpx.Client, spec: dict[str, Any]
) -> None:
    path = links(client)["create-route"]
    content = announced(client, path, route(**spec))
    itself = content["link"]["self"]
    assert itself == f"{_ACCOUNT}/routes/{_UID}"
    told = content["route"]["spec"]
    assert told.get("http", {}).get("hostnames") == spec.get("http", {}).get("hostnames")
    assert announced(client, path, route(**spec))["link"] == content["link"]
    reply = client.put(itself, json=route(http={"hostnames": ["third-host"]}))
    assert (reply.status_code, reply.json()["route"]["spec"]["http"]["hostnames"]) == (200, ["third-host"])
    for _ in range(2):
        deleted = client.delete(itself)
        assert (deleted.status_code, deleted.json()) == (200, {"message": "route deleted"})


def test_service_with_a_cluster_and_an_endpoint_is_announced_and_deleted_by_its_links(
    client: httpx.Client,
) -> None:
    """The original's first API: that of PureLB."""
    path = client.get(_GROUP).json()["link"]["create-service"]
    ports = [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 0}]
    service = {
        "metadata": {"name": "web", "namespace": ""},
        "spec": {"display-name": "web", "public-ports": ports, "gue-tunnel-endpoints": None},
        "status": {},
    }
    content = announced(client, path, {"service": service})
    link, spec = content["link"], content["service"]["spec"]
    assert link["group"] == _GROUP
    assert spec["public-address"].startswith("203.0.113.")
    assert spec["endpoints"][0]["targets"] == [spec["public-address"]]
    cluster = announced(client, link["create-cluster"], {"cluster-id": "unit-test"})
    assert announced(client, link["create-cluster"], {"cluster-id": "unit-test"}) == cluster
    place = {
        "cluster": "unit-test",
        "address": "10.42.27.42",
        "node-address": "192.168.254.101",
        "port": {"name": "http", "port": 8080, "protocol": "TCP"},
    }
    endpoint = announced(client, link["create-endpoint"], {"endpoint": {"spec": place}})
    assert endpoint["link"]["service"] == link["self"] == cluster["link"]["service"]
    again = client.post(link["create-endpoint"], json={"endpoint": {"spec": place}})
    assert (again.status_code, again.json()["endpoint"]["spec"]["address"]) == (409, "10.42.27.42")
    held = client.delete(link["self"])
    assert (held.status_code, "unit-test" in held.headers["x-epic-error-message"]) == (409, True)
    for itself, said in (
        (endpoint["link"]["self"], "endpoint deleted"),
        (cluster["link"]["self"], "delete successful"),
        (link["self"], "delete successful"),
    ):
        for _ in range(2):
            deleted = client.delete(itself)
            assert (deleted.status_code, deleted.json()) == (200, {"message": said})
        assert client.get(itself).status_code == 404


def test_error_says_why_in_the_header_that_the_client_reads(client: httpx.Client) -> None:
    absent = client.post(f"{_ACCOUNT}/groups/none/proxies", json=proxy())
    assert absent.status_code == 404
    assert absent.headers["x-epic-error-message"] == absent.json()["error"]
    wrong = client.post(f"{_GROUP}/proxies", json={"proxy": {"spec": {}}})
    assert wrong.status_code == 400
    assert "clientRef" in wrong.headers["x-epic-error-message"]


def test_installer_sees_by_401_that_the_api_is_up(client: httpx.Client) -> None:
    reply = httpx.get(f"{client.base_url}{API}", verify=False)  # noqa: S501 - as the original's does
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith('Basic realm="')


@pytest.mark.skipif(
    not _COMPILED, reason="EPIC_ORIGINAL_CLIENT names no compiled tests of the original's client"
)
def test_its_own_tests_pass(control: ControlProcess) -> None:
    with _proxy_to(control.port) as proxy_port:
        environment = {**os.environ, "HTTPS_PROXY": f"http://127.0.0.1:{proxy_port}"}
        ended = subprocess.run(
            [str(Path(str(_COMPILED)).resolve()), "-test.v", "-test.timeout", "5m"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("--- PASS") >= 4, ended.stdout


class _Connect(socketserver.StreamRequestHandler):
    """CONNECT to the host of the client's tests, and to no other, leads to the port of epic-control."""

    def handle(self) -> None:
        asked = self.rfile.readline().split()
        while self.rfile.readline().strip():
            pass
        assert asked[:2] == [b"CONNECT", f"{_HOST}:443".encode()]
        port: int = self.server.control_port  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(there, self.connection))
            back.start()
            _copy(self.connection, there)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    # The client leaves connections without a word.
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def _proxy_to(control_port: int) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Connect) as server:
        server.control_port = control_port  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
