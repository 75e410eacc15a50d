# SPDX-License-Identifier: Apache-2.0
"""epic-control goes on serving, and says why, where a disk, an object or a part of it is out of order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from control_process import ACCOUNT, API, ControlProcess
from store_sites import EtcdSite, SqliteSite
from test_control_kills import PROXIES, ROUTES, gateway, number_of, route

from epic.store.location import StoreLocation
from epic.store.objects import Key

Start = Callable[..., ControlProcess]
_FULL_SECONDS = 60.0
PARTS = {
    "lives": ("epic.reconcile.lifecycle", "Lifecycle", "work", "fail"),
    "siblings": ("epic.reconcile.siblings_keeper", "SiblingsKeeper", "work", "fail"),
    "keys": ("epic.control.rotate", "Rotator", "run", "fail_later"),
    "runs": ("epic.runs.queue", "RunQueue", "run", "fail_later"),
    "xDS": ("epic.ads.service", "AdsService", "_follow", "fail_later"),
}
_FAULT = """
def fail(*_):
    raise RuntimeError("out of order")
async def fail_later(*_):
    fail()
import {0}
{0}.{1}.{2} = {3}
"""


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_fails_at_all_it_does_keeps_no_other_from_its_work(
    start: Start, tmp_path: Path, part: str
) -> None:
    control = start(StoreLocation(sqlite=tmp_path / "store.db"), _FAULT.format(*PARTS[part]))
    with control.client() as client:
        assert client.post(PROXIES, json=gateway("G")).status_code == 302
        assert client.post(ROUTES, json=route("R", 1)).status_code == 302
        eventually(lambda: f"{part}: begins again" in control.log_text(), f"{part} is not said to fail")
        eventually(lambda: "RuntimeError: out of order" in control.log_text(), "the cause is not named")
        failures = f'epic_control_part_failures_total{{part="{part}"}} '
        assert any(line.startswith(failures) for line in control.metrics()), "they are not counted"
        for number in range(2, 5):
            assert client.put(f"{ROUTES}/R", json=route("R", number)).status_code == 302
            assert number_of(client, "R") == number
        if part != "runs":
            # There is no host to run anything on.
            runs = lambda: [r["status"]["state"] for r in client.get(f"{API}/runs").json()["items"]]  # noqa: E731
            eventually(lambda: "failed" in runs(), "runs are not executed")
        if part != "lives":
            assert client.delete(f"{API}/accounts/{ACCOUNT}/routes/R").status_code == 200
    control.stop()


def test_an_object_that_is_damaged_while_it_is_down_is_named_and_others_are_served(
    start: Start, location: StoreLocation
) -> None:
    control = start(location)
    with control.client() as client:
        for name in ("G", "H"):
            assert client.post(PROXIES, json=gateway(name)).status_code == 302
        assert client.post(ROUTES, json=route("R", 1)).status_code == 302
        had = client.get(f"{API}/accounts/{ACCOUNT}/proxies/H").json()["proxy"]["spec"]["public-address"]
    control.kill()
    sqlite = location.sqlite
    site = SqliteSite(sqlite) if sqlite is not None else EtcdSite(_etcd(location))
    for key in (Key("GWProxy", ACCOUNT, "H"), Key("GWRoute", ACCOUNT, "R")):
        asyncio.run(site.alter(key, lambda value: value[:-1] + b"?"))
    control.start()
    with control.client() as client:
        named = {(item["kind"], item["name"]) for item in client.get(f"{API}/unreadable").json()["items"]}
        assert named == {("GWProxy", "H"), ("GWRoute", "R")}
        assert "GWProxy 'H' of account 'shop'" in control.log_text()
        listed = client.get(f"{API}/accounts/{ACCOUNT}/proxies").json()["items"]
        assert [item["metadata"]["name"] for item in listed] == ["G"]
        made = client.post(PROXIES, json=gateway("I"))
        assert made.status_code == 302
        assert made.json()["proxy"]["spec"]["public-address"] != had
        assert client.post(ROUTES, json=route("R", 2)).status_code == 302
        assert number_of(client, "R") == 2
        assert client.delete(f"{API}/accounts/{ACCOUNT}/proxies/H").status_code == 200
        assert client.get(f"{API}/unreadable").json()["items"] == []


def _etcd(location: StoreLocation) -> object:
    assert location.etcd is not None
    return location.etcd


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of a few megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounts a small disk: needs root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_is_full_for_a_minute_loses_nothing_and_is_over_by_itself(
    start: Start, small_disk: Path
) -> None:
    control = start(StoreLocation(sqlite=small_disk / "store.db"))
    ballast = small_disk / "ballast"
    with control.client() as client:
        assert client.post(PROXIES, json=gateway("G")).status_code == 302
        assert client.post(ROUTES, json=route("R", 1)).status_code == 302
        number = 1
        replies: set[int] = set()
        end = time.monotonic() + _FULL_SECONDS
        while time.monotonic() < end:
            with suppress(OSError), ballast.open("ab") as file:
                file.write(b"\0" * _room(small_disk))
            reply = client.put(f"{ROUTES}/R", json=route("R", number + 1))
            replies.add(reply.status_code)
            if reply.status_code == 302:
                number += 1
            else:
                assert (reply.status_code, reply.json()["reason"]) == (503, "NotWritable"), reply.text
                assert client.get(f"{API}/accounts/{ACCOUNT}/proxies/G").status_code == 200
            time.sleep(0.1)
        assert 503 in replies
        text = control.log_text()
        assert f"{small_disk}/store.db cannot be written: " in text
        assert "the disk is full" in text
        ballast.unlink()
        assert client.put(f"{ROUTES}/R", json=route("R", number + 1)).status_code == 302
        control.kill()
        control.start()
    with control.client() as client:
        assert number_of(client, "R") == number + 1
    control.stop()


def _room(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize
