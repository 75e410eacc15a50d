# SPDX-License-Identifier: Apache-2.0
"""`epicctl delete KIND NAME`: which object is meant, what becomes of it, what is completed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from epic.cli.main import app
from epic.errors import Conflict, NotFound

Epicctl = Callable[..., Result]
API = "/api/epic"
SOURCES = "puregw.epic-gateway.org/sources"


def row(name: str, account: str = "", called: str = "", **metadata: Any) -> dict[str, Any]:
    namespace = {"namespace": account} if account else {}
    spec = {"clientRef": {"name": called}} if called else {}
    return {"metadata": {"name": name, **namespace, **metadata}, "spec": spec}


class Api:
    """Objects by path; a gateway goes slowly, account `full` cannot go."""

    keys = {"proxies": "proxy", "routes": "route", "nodes": "node", "users": "user", "accounts": "account"}

    def __init__(self, *, admin: bool = True) -> None:
        self.admin = admin
        self.deleted: list[str] = []
        self.objects = {
            "nodes": {"epic1": row("epic1")},
            "accounts": {name: row(name) for name in ("full", "shop")},
            "accounts/shop/users": {"ann": row("ann", "shop")},
            "accounts/full/users": {"ann": row("ann", "full")},
            "accounts/shop/proxies": {"U1": row("U1", "shop", "web"), "U2": row("U2", "shop", "api")},
            "accounts/shop/routes": {
                "R1": row("R1", "shop", annotations={SOURCES: "c1/host1,c2"}),
                "R2": row("R2", "shop"),
            },
        }

    def get(self, path: str) -> dict[str, Any]:
        place = path.removeprefix(API).removeprefix("/")
        if not place:
            return {"link": {} if self.admin else {"account": f"{API}/accounts/shop"}}
        if place in self.objects or place.count("/") in (0, 2):
            return {"items": list(self.objects.get(place, {}).values())}
        collection, _, name = place.rpartition("/")
        found = self.objects.get(collection, {}).get(name)
        if found is None:
            raise NotFound(path)
        return {self.keys[collection.rpartition("/")[2]]: found}

    def list_all(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(path)["items"]
        return found

    def find(self, path: str) -> dict[str, Any] | None:
        try:
            return self.get(path)
        except NotFound:
            return None

    def delete(self, path: str) -> dict[str, Any]:
        collection, _, name = path.removeprefix(f"{API}/").rpartition("/")
        if name == "full":
            raise Conflict("account 'full' has 1 gateways (U9); delete them first")
        self.deleted.append(f"{collection}/{name}")
        if collection.endswith("proxies"):
            self.objects[collection][name]["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        else:
            del self.objects[collection][name]
        return {}


@pytest.mark.parametrize("kind", ["route", "routes", "gwr", "HTTPROUTE"])
def test_an_object_is_deleted_by_kind_and_name(epicctl_on: Callable[[Api], Epicctl], kind: str) -> None:
    api = Api()
    result = epicctl_on(api)("delete", kind, "R2")
    if kind == "HTTPROUTE":
        assert "there is no kind 'HTTPROUTE'" in str(result.exception)
        assert api.deleted == []
        return
    assert (result.exit_code, result.output) == (0, "route/shop/R2 deleted\n")
    assert api.deleted == ["accounts/shop/routes/R2"]


def test_what_goes_slowly_is_said_to_be_going(epicctl_on: Callable[[Api], Epicctl]) -> None:
    result = epicctl_on(Api(admin=False))("delete", "gateway", "U1", "U2")
    assert result.exit_code == 0
    assert result.output == "gateway/shop/U1 is being deleted\ngateway/shop/U2 is being deleted\n"


def test_one_that_fails_does_not_stop_the_others(epicctl_on: Callable[[Api], Epicctl]) -> None:
    api = Api()
    result = epicctl_on(api)("delete", "accounts", "full", "none", "shop")
    assert (result.exit_code, result.stdout) == (1, "account/shop deleted\n")
    assert "account 'full' has 1 gateways" in result.stderr
    assert "there is no account 'none'" in result.stderr


def test_a_name_in_several_accounts_is_refused_without_one(epicctl_on: Callable[[Api], Epicctl]) -> None:
    api = Api()
    result = epicctl_on(api)("delete", "user", "ann")
    assert (result.exit_code, api.deleted) == (1, [])
    assert "there are 2 users 'ann', of accounts full, shop; say which with --account" in result.stderr
    assert epicctl_on(api)("delete", "user", "ann", "-A", "shop").stdout == "user/shop/ann deleted\n"
    assert api.deleted == ["accounts/shop/users/ann"]


def test_the_clients_name_is_no_name_but_leads_to_it(epicctl_on: Callable[[Api], Epicctl]) -> None:
    api = Api()
    result = epicctl_on(api)("delete", "gateway", "web")
    assert (result.exit_code, api.deleted) == (1, [])
    assert (
        "there is no gateway 'web' in accounts full, shop; 'web' is the client's name of U1" in result.stderr
    )


def test_who_asks_for_an_object_is_named(epicctl_on: Callable[[Api], Epicctl]) -> None:
    result = epicctl_on(Api())("delete", "route", "R1")
    assert (result.exit_code, result.stdout) == (0, "route/shop/R1 deleted\n")
    assert "c1/host1, c2 ask for it, and make it anew unless it is removed there" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a kind and names, or -f"),
        (["route"], "name the routes to delete"),
        (["route", "R1", "-f", "x.yaml"], "give a kind and names, or -f"),
        (["route", "R1", "--template", "http"], "--template"),
        (["route", "R1", "--cluster", "c"], "--cluster"),
    ],
)
def test_wrong_use_deletes_nothing(
    epicctl_on: Callable[[Api], Epicctl], arguments: list[str], words: str
) -> None:
    api = Api()
    result = epicctl_on(api)("delete", *arguments)
    assert (result.exit_code, api.deleted) == (2, [])
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_runs_are_a_record_and_cannot_be_deleted(epicctl_on: Callable[[Api], Epicctl]) -> None:
    assert "runs cannot be deleted" in str(epicctl_on(Api())("delete", "run", "1").exception)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("epicctl delete ro", ["routes"]),
        ("epicctl delete ru", []),
        ("epicctl get ru", ["runs"]),
        ("epicctl delete route R", ["R1", "R2"]),
        ("epicctl delete route R1 R", ["R2"]),
        ("epicctl get nodes e", ["epic1"]),
        ("epicctl get nonsense e", []),
    ],
)
def test_kinds_and_names_are_completed(
    epicctl_on: Callable[[Api], Epicctl], tmp_path: Path, typed: str, completed: list[str]
) -> None:
    epicctl_on(Api())
    words = typed.split()
    environment = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "_EPICCTL_COMPLETE": "complete_bash",
        "EPICCTL_CONFIG": str(tmp_path / "epicctl.yaml"),
    }
    result = CliRunner().invoke(app, [], env=environment, prog_name="epicctl")
    assert (result.output.split(), result.exit_code) == (completed, 0)
