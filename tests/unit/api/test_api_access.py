# SPDX-License-Identifier: Apache-2.0
"""Who may do what: credentials, accounts, administrators; and no secret in a reply."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, TENANT, proxy_body
from argon2 import PasswordHasher

from epic.api.access import auth
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import User, UserSpec


@pytest.mark.parametrize("path", [API, f"{API}/accounts/root", f"{API}/nope", "/", f"{API}/openapi.json"])
async def test_no_credentials_is_401_everywhere(anyone: httpx.AsyncClient, path: str) -> None:
    reply = await anyone.get(path)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == 'Basic realm="epicauth", charset="UTF-8"'


async def test_health_needs_no_credentials(anyone: httpx.AsyncClient) -> None:
    assert (await anyone.get(f"{API}/healthz")).json() == {"healthy": "yes"}


@pytest.mark.parametrize(
    "header", ["Basic !", "Basic YQ==", "Bearer x", "Basic " + "dXNlcjE6d3Jvbmc=", "Basic /w=="]
)
async def test_wrong_credentials_are_401(anyone: httpx.AsyncClient, header: str) -> None:
    reply = await anyone.get(f"{API}/accounts/root", headers={"authorization": header})
    assert reply.status_code == 401
    assert reply.json()["error"]


async def test_tenant_reaches_its_own_account(tenant: httpx.AsyncClient) -> None:
    account = (await tenant.get(f"{API}/accounts/root")).json()
    assert account["link"] == {
        "self": f"{API}/accounts/root",
        "create-route": f"{API}/accounts/root/routes",
        "create-slice": f"{API}/accounts/root/slices",
    }
    assert account["account"]["spec"] == {
        "proxyLimit": 20,
        "workloadNodeLimit": 250,
        "tunnelLimit": 2000,
        "endpointLimit": 20000,
        "routeLimit": 1000,
        "sliceLimit": 2000,
        "bytesLimit": 67108864,
    }
    group = (await tenant.get(f"{API}/accounts/root/groups/gatewayhttp")).json()
    assert group["link"]["create-proxy"] == PROXIES
    assert (await tenant.get(API)).json()["link"]["account"] == f"{API}/accounts/root"


@pytest.mark.parametrize(
    "path",
    ["accounts/other", "accounts/none", "accounts/rootx", "accounts", "accounts/", "nodes", "runs", "nope"],
)
async def test_everything_else_is_403_for_a_tenant_whether_it_exists_or_not(
    tenant: httpx.AsyncClient, path: str
) -> None:
    reply = await tenant.get(f"{API}/{path}")
    assert reply.status_code == 403
    assert f"may use only {API}/accounts/root" in reply.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "", {"account": {"spec": {"proxyLimit": 1000}}}),
        ("DELETE", "", None),
        ("GET", "/users", None),
        ("POST", "/users", {"user": {"name": "x", "password": "12345678"}}),
        ("PUT", "/groups/gatewayhttp", {"group": {"spec": {"service-prefix": "default"}}}),
        ("DELETE", "/groups/gatewayhttp", None),
    ],
)
async def test_a_tenant_cannot_administer_its_own_account(
    tenant: httpx.AsyncClient, method: str, path: str, body: object
) -> None:
    reply = await tenant.request(method, f"{API}/accounts/root{path}", json=body)
    assert reply.status_code == 403
    assert "administrators" in reply.json()["error"]


async def test_equal_user_names_of_two_accounts_are_two_users(
    anyone: httpx.AsyncClient, store: CachedStore
) -> None:
    with store.transaction() as transaction:
        spec = UserSpec(password_hash=auth.hash_password("other-password"))
        transaction.create(User(metadata=Metadata(name=TENANT[0], namespace="other"), spec=spec))
    theirs = (TENANT[0], "other-password")
    assert (await anyone.get(f"{API}/accounts/other", auth=theirs)).status_code == 200
    assert (await anyone.get(f"{API}/accounts/root", auth=theirs)).status_code == 403
    assert (await anyone.get(f"{API}/accounts/root", auth=TENANT)).status_code == 200


async def test_user_life_from_creation_to_deletion_takes_effect_at_once(admin: httpx.AsyncClient) -> None:
    users, own = f"{API}/accounts/other/users", f"{API}/accounts/other"
    body = {"user": {"name": "u", "password": "first-password"}}
    reply = await admin.post(users, json=body)
    assert (reply.status_code, reply.headers["location"]) == (302, f"{users}/u")
    assert (await admin.get(own, auth=("u", "first-password"))).status_code == 200
    body["user"]["password"] = "second-password"
    await admin.post(users, json=body)
    assert (await admin.get(own, auth=("u", "first-password"))).status_code == 401
    assert (await admin.get(own, auth=("u", "second-password"))).status_code == 200
    await admin.delete(f"{users}/u")
    assert (await admin.get(own, auth=("u", "second-password"))).status_code == 401


async def test_no_reply_holds_a_hash_or_a_refused_password(admin: httpx.AsyncClient) -> None:
    for path in ("accounts/root/users", "accounts/root/users/user1", "accounts/root"):
        text = (await admin.get(f"{API}/{path}")).text
        assert "argon2" not in text
    body = {"user": {"name": "u", "password": "sEcret"}}
    reply = await admin.post(f"{API}/accounts/root/users", json=body)
    assert reply.status_code == 400
    assert "at least 8" in reply.json()["error"]
    assert "sEcret" not in reply.text


async def test_a_verified_credential_is_not_hashed_again(
    anyone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    monkeypatch.setattr(auth, "verify_password", lambda *a: hashed.append(a) or True)
    for _ in range(3):
        assert (await anyone.get(f"{API}/nodes", auth=ADMIN)).status_code == 200
    assert len(hashed) == 1


def test_passwords_are_hashed_with_argon2id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_hasher", PasswordHasher())
    hashed = auth.hash_password("p")
    assert hashed.startswith("$argon2id$")
    assert auth.verify_password(hashed, "p")
    assert not auth.verify_password(hashed, "q")
    assert not auth.verify_password("no hash", "p")


async def test_openapi_describes_the_paths(tenant: httpx.AsyncClient) -> None:
    document = (await tenant.get(f"{API}/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    path = "/api/epic/accounts/{account}/groups/{group}/proxies"
    assert document["paths"][path]["post"]["requestBody"]["required"]


async def test_unknown_path_is_404_and_wrong_method_405(admin: httpx.AsyncClient) -> None:
    assert "there is nothing at" in (await admin.get(f"{API}/nope")).json()["error"]
    assert (await admin.patch(f"{API}/nodes", json=proxy_body())).status_code == 405


async def test_a_body_without_end_is_not_taken(tenant: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"slice": "'
        while sent < 100 << 20:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    reply = await tenant.post(f"{API}/accounts/root/slices", content=endless())
    assert reply.status_code == 413
    assert "more than" in reply.json()["error"]
    assert sent <= 3 << 20


@pytest.mark.parametrize("depth", [200, 400, 600, 900, 100_000])
async def test_a_deep_body_is_a_wrong_request_and_no_fault_of_ours(
    tenant: httpx.AsyncClient, depth: int
) -> None:
    body = '{"slice": ' + "[" * depth + "]" * depth + "}"
    reply = await tenant.post(f"{API}/accounts/root/slices", content=body)
    assert reply.status_code == 400


async def test_the_log_has_the_beginning_of_a_long_path(
    tenant: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await tenant.delete(f"{API}/accounts/root/routes/{'x' * 10_000}")
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("DELETE")]
    assert line.endswith("by root/user1: 200")
    assert len(line) < 400
