# SPDX-License-Identifier: Apache-2.0
"""The directory source: bad files keep their last state, keys in files, following changes and accounts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from manifests import SHOP

from epic.client import EpicClient
from epic.controller.documents import read_file
from epic.controller.linux import Connections, LinuxController, ManifestDirectory
from epic.errors import Invalid


def test_a_file_that_turns_bad_counts_as_it_last_was(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    directory = ManifestDirectory(tmp_path)
    before, _, known = directory.read()
    assert known
    file.write_text("kind: [")
    after, (problem,), known = directory.read()
    assert known
    assert [o.ref for o in after.everything()] == [o.ref for o in before.everything()]
    assert (problem.source, "line 1" in problem.message) == (str(file), True)


def test_a_bad_file_at_the_start_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("- 1")
    _, problems, known = ManifestDirectory(tmp_path).read()
    assert (known, len(problems)) == (False, 1)


def test_other_files_are_no_manifests(tmp_path: Path) -> None:
    for name in (".shop.yaml", "shop.yaml~", "shop.key"):
        (tmp_path / name).write_text("kind: [")
    assert ManifestDirectory(tmp_path).read()[1:] == ([], True)


def test_an_object_in_two_files_is_named_once_each(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(SHOP)
    objects, problems, _ = ManifestDirectory(tmp_path).read()
    assert len(objects.everything()) == len(problems) == 6
    assert {p.source for p in problems} == {str(tmp_path / "b.yaml")}


def test_the_key_may_be_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(SHOP.replace("service-key: secret", "service-key-file: shop.key"))
    with pytest.raises(Invalid, match=r"shop\.key"):
        read_file(tmp_path / "shop.yaml")
    (tmp_path / "shop.key").write_text("hidden\n")
    assert read_file(tmp_path / "shop.yaml")[0].content["spec"]["epic"]["service-key"] == "hidden"


async def _eventually(check: Any) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(check):  # noqa: ASYNC110 what is waited for is on a server
            await asyncio.sleep(0.05)


async def test_the_controller_follows_the_directory(tmp_path: Path, live_api: Any) -> None:
    admin = EpicClient(live_api.url, live_api.username, live_api.password)
    admin.post("/api/epic/accounts", {"account": {"metadata": {"name": "shop"}}})
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    controller = LinuxController(manifests, "lab", "node1", "192.168.50.11", None, tmp_path / "made.json")
    controller._client_of = lambda _: admin  # type: ignore[method-assign]
    controller._applier._client_of = lambda _: admin
    seen: list[Connections] = []

    async def follow() -> None:
        async for connections in controller.connection_changes():
            seen.append(connections)  # noqa: PERF401 the stream has no end

    def slices() -> int:
        return len(admin.get("/api/epic/accounts/shop/slices")["items"])

    tasks = [asyncio.create_task(controller.run()), asyncio.create_task(follow())]
    try:
        await _eventually(lambda: seen == [Connections((), complete=True)])
        (manifests / "shop.yaml").write_text(SHOP)
        await _eventually(lambda: slices() == 1)
        assert [c.account for c in seen[-1].found] == ["shop"]
        (manifests / "shop.yaml").unlink()
        await _eventually(lambda: slices() == 0)
        await _eventually(lambda: seen[-1] == Connections((), complete=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
