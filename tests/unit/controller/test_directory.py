# SPDX-License-Identifier: Apache-2.0
"""The directory source: what cannot be seen is not gone, keys in files, following changes and accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from manifests import SHOP

from epic.client import EpicClient
from epic.controller.directory import ManifestDirectory
from epic.controller.documents import read_file, read_piece
from epic.controller.linux import Connections, HostSettings, LinuxController
from epic.controller.objects import NOTHING_UNSEEN
from epic.errors import Invalid, Unavailable


def _refs(directory: ManifestDirectory) -> list[str]:
    return [str(obj.ref) for obj in directory.objects.everything()]


def _without(text: str, kind: str) -> str:
    return "---".join(part for part in text.split("---") if f"kind: {kind}\n" not in part)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The shop's objects, in one file."""
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    return path


def test_a_file_that_cannot_be_read_counts_as_it_last_was(file: Path) -> None:
    directory = ManifestDirectory(file.parent)
    directory.read()
    before = _refs(directory)
    file.write_bytes(b"\xff")
    look = directory.read()
    assert (_refs(directory), look.changed, look.unseen.files) == (before, frozenset(), {str(file)})
    assert "UTF-8" in look.problems[0].message


def test_a_bad_document_hurts_only_itself_and_is_named_by_its_number(file: Path) -> None:
    file.write_text(SHOP.replace("kind: HTTPRoute", "kind: [HTTPRoute"))
    directory = ManifestDirectory(file.parent)
    look = directory.read()
    assert len(_refs(directory)) == 5
    (problem,) = look.problems
    assert (problem.source, problem.document, problem.reason) == (str(file), 4, "Invalid")
    assert "line 25" in problem.message
    assert str(problem).startswith(f"{file}: document 4: ")


def test_a_document_that_turns_bad_counts_as_it_last_was_and_others_follow(file: Path) -> None:
    directory = ManifestDirectory(file.parent)
    directory.read()
    broken = SHOP.replace("kind: HTTPRoute", "kind: [HTTPRoute")
    file.write_text(broken.replace("port: 8080", "port: 8081"))
    look = directory.read()
    assert {ref.kind for ref in look.changed} == {"EndpointSlice"}
    assert len(_refs(directory)) == 6


def test_an_object_with_a_wrong_field_is_held_by_its_name_and_hides_no_other(file: Path) -> None:
    file.write_text(SHOP.replace("addressType: IPv4", "addressType: IPv5"))
    directory = ManifestDirectory(file.parent)
    look = directory.read()
    assert [str(ref) for ref in look.unseen.refs] == ["EndpointSlice shop/web"]
    assert not look.unseen.files
    file.write_text(_without(SHOP, "HTTPRoute"))
    assert {ref.kind for ref in directory.read().changed} == {"EndpointSlice", "HTTPRoute"}
    assert "HTTPRoute shop/web" not in _refs(directory)


def test_documents_of_other_kinds_are_named_and_hurt_nothing(file: Path) -> None:
    secret = "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: web, namespace: shop}\n"
    file.write_text(SHOP + secret)
    directory = ManifestDirectory(file.parent)
    look = directory.read()
    assert (len(_refs(directory)), look.unseen) == (6, NOTHING_UNSEEN)
    assert [(p.document, p.reason) for p in look.problems] == [(7, "InvalidKind")]


def test_a_slip_in_the_kind_does_not_take_the_object_away(file: Path) -> None:
    directory = ManifestDirectory(file.parent)
    directory.read()
    file.write_text(SHOP.replace("kind: Gateway\n", "kind: Gatway\n"))
    look = directory.read()
    assert (len(_refs(directory)), look.changed) == (6, frozenset())
    assert "is gateway.networking.k8s.io Gateway meant?" in look.problems[0].message


@pytest.mark.parametrize(
    "text",
    [
        "a: .nan",
        "a: !!binary aGk=",
        "a: 2026-99-99x\n b: 1",
        "[" * 20000,
        "a: &a [x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "a: &a [*a]",
        "- 1",
        "!!python/object:os.system {}",
    ],
)
def test_no_text_stops_the_others(file: Path, text: str) -> None:
    (file.parent / "odd.yaml").write_text(text)
    directory = ManifestDirectory(file.parent)
    look = directory.read()
    assert len(_refs(directory)) == 6
    assert {p.source for p in look.problems} == {str(file.parent / "odd.yaml")}


def test_a_look_reads_only_what_has_changed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "other.yaml").write_text("")
    directory = ManifestDirectory(file.parent)
    directory.read()
    read: list[str] = []
    monkeypatch.setattr(
        "epic.controller.directory.read_piece", lambda piece, _: read.append(piece.text) or []
    )
    assert directory.read().changed == frozenset()
    (file.parent / "other.yaml").write_text("kind: Secret")
    directory.read([file.parent / "other.yaml"])
    directory.read()
    assert read == ["kind: Secret"]


def test_only_the_changed_documents_of_a_file_are_parsed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = ManifestDirectory(file.parent)
    directory.read()
    read: list[int] = []

    def note(piece: Any, source: str) -> Any:
        read.append(piece.number)
        return read_piece(piece, source)

    monkeypatch.setattr("epic.controller.directory.read_piece", note)
    file.write_text(SHOP.replace("shop.example.net", "new.example.net"))
    assert [str(ref) for ref in directory.read([file]).changed] == ["HTTPRoute shop/web"]
    assert read == [4]


def test_a_file_that_is_gone_takes_its_objects_along(file: Path) -> None:
    directory = ManifestDirectory(file.parent)
    directory.read()
    file.unlink()
    assert len(directory.read([file]).changed) == 6
    assert _refs(directory) == []


def test_a_directory_that_cannot_be_seen_is_not_empty(file: Path) -> None:
    directory = ManifestDirectory(file.parent / "sub")
    with pytest.raises(Invalid, match="sub"):
        directory.read()
    directory = ManifestDirectory(file.parent)
    directory.read()
    file.parent.rename(file.parent.with_name("elsewhere"))
    with pytest.raises(Invalid, match="cannot be read"):
        directory.read([file])
    assert len(_refs(directory)) == 6


def test_a_link_that_leads_nowhere_counts_as_it_last_was(tmp_path: Path) -> None:
    target = tmp_path / "team" / "shop.yaml"
    target.parent.mkdir()
    target.write_text(SHOP)
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "shop.yaml").symlink_to(target)
    directory = ManifestDirectory(manifests)
    directory.read()
    target.unlink()
    look = directory.read()
    assert (len(_refs(directory)), look.unseen.files) == (6, {str(manifests / "shop.yaml")})


def test_other_files_are_no_manifests(tmp_path: Path) -> None:
    for name in (".shop.yaml", "shop.yaml~", "shop.key"):
        (tmp_path / name).write_text("kind: [")
    look = ManifestDirectory(tmp_path).read()
    assert (look.problems, look.unseen) == ((), NOTHING_UNSEEN)


def test_an_object_in_two_files_stays_the_one_that_it_was(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SHOP)
    directory = ManifestDirectory(tmp_path)
    directory.read()
    (tmp_path / "a.yaml").write_text(SHOP)
    look = directory.read()
    assert (look.changed, len(look.problems)) == (frozenset(), 6)
    assert {(p.source, p.reason) for p in look.problems} == {(str(tmp_path / "a.yaml"), "Duplicate")}
    again = ManifestDirectory(tmp_path, {obj.ref: obj.source for obj in directory.objects.everything()})
    assert {p.source for p in again.read().problems} == {str(tmp_path / "a.yaml")}
    (tmp_path / "b.yaml").unlink()
    assert {obj.source for obj in directory.objects.everything()} == {str(tmp_path / "b.yaml")}
    assert directory.read().problems == ()
    assert {obj.source for obj in directory.objects.everything()} == {str(tmp_path / "a.yaml")}


def test_a_changed_key_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(SHOP.replace("service-key: secret", "service-key-file: shop.key"))
    directory = ManifestDirectory(tmp_path)
    assert [str(ref) for ref in directory.read().unseen.refs] == ["GatewayClassConfig shop/epic"]
    for key in ("one", "two"):
        (tmp_path / "shop.key").write_text(key)
        assert [ref.kind for ref in directory.read([tmp_path / "shop.key"]).changed] == ["GatewayClassConfig"]


def test_the_key_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(SHOP.replace("service-key: secret", "service-key-file: shop.key"))
    with pytest.raises(Invalid, match=r"shop\.key"):
        read_file(tmp_path / "shop.yaml")
    (tmp_path / "shop.key").write_text("hidden\n")
    assert read_file(tmp_path / "shop.yaml")[0].content["spec"]["epic"]["service-key"] == "hidden"


async def _eventually(check: Any) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(check):  # noqa: ASYNC110 what is waited for is on a server
            await asyncio.sleep(0.05)


@pytest.fixture
def admin(live_api: Any) -> EpicClient:
    client = EpicClient(live_api.url, live_api.username, live_api.password)
    client.post("/api/epic/accounts", {"account": {"metadata": {"name": "shop"}}})
    return client


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
async def seen(
    tmp_path: Path, manifests: Path, admin: EpicClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Connections]]:
    """What a controller that follows the manifests says of accounts."""
    host = HostSettings(
        manifests,
        cluster="lab",
        node_name="node1",
        node_address="192.168.50.11",
        ca=None,
        state_file=tmp_path / "made.json",
        statuses=tmp_path / "status",
    )
    monkeypatch.setattr(LinuxController, "_client_of", lambda *_: admin)
    controller = LinuxController(host)
    seen: list[Connections] = []

    async def follow() -> None:
        async for connections in controller.connection_changes():
            seen.append(connections)  # noqa: PERF401 the stream has no end

    tasks = [asyncio.create_task(controller.run()), asyncio.create_task(follow())]
    try:
        await _eventually(lambda: seen == [Connections((), complete=True)])
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _slices(admin: EpicClient) -> int:
    return len(admin.get("/api/epic/accounts/shop/slices")["items"])


async def test_the_controller_follows_the_directory(
    manifests: Path, admin: EpicClient, seen: list[Connections]
) -> None:
    (manifests / "shop.yaml").write_text(SHOP)
    await _eventually(lambda: _slices(admin) == 1)
    assert [c.account for c in seen[-1].found] == ["shop"]
    (manifests / "shop.yaml").unlink()
    await _eventually(lambda: _slices(admin) == 0)
    await _eventually(lambda: seen[-1] == Connections((), complete=True))


async def test_an_account_counts_until_nothing_of_the_host_is_left_there(
    manifests: Path, admin: EpicClient, seen: list[Connections], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(*_: object, **__: object) -> None:
        loop.call_soon_threadsafe(tried.set)
        raise Unavailable("the control plane is away")

    (manifests / "shop.yaml").write_text(SHOP)
    await _eventually(lambda: _slices(admin) == 1)
    with monkeypatch.context() as away:
        away.setattr(admin, "delete", refuse)
        (manifests / "shop.yaml").unlink()
        async with asyncio.timeout(60):
            await tried.wait()
        assert [c.account for c in seen[-1].found] == ["shop"]
    await _eventually(lambda: seen[-1] == Connections((), complete=True))
    assert _slices(admin) == 0
