# SPDX-License-Identifier: Apache-2.0
"""An agent's session with a real control plane: it enrols, follows, reports, renews, and enrols again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from workload_site import PASSWORD, Site, eventually, piece, route, running, tunnel

from epic.agent.control.certificate import CertificateRenewer
from epic.agent.workload.control import session
from epic.agent.workload.control.reports import ReportedList, StatusReporter, StatusSample
from epic.agent.workload.control.session import TunnelIntake, TunnelSession
from epic.agent.workload.lists import TunnelLists
from epic.api.access import auth
from epic.api.app import create_app
from epic.api.context import Context
from epic.control.rest_server import RestServer
from epic.control.settings import RestSettings
from epic.controller.desired import EpicConnection
from epic.live import Place
from epic.model.base import now
from epic.model.resources import Account, Tunnel, User
from epic.runs.events import EventHub
from epic.workloads.identity import Enrolment

LABEL = "shop"
PLACE = Place("shop", "c", "n1")


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.put(route("shop"), piece("shop", "10.0.0.1"), tunnel("shop", 7))
    yield site
    site.store.close()


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[str]:
    """Both servers; yields the REST API's address."""
    async with site.serving():
        sock = socket.create_server(("127.0.0.1", 0))
        settings = RestSettings(
            certificate=site.control / "server.crt", key=site.control / "server.key", connections=64
        )
        context = Context(
            store=site.store,
            inside_pool=IPv4Network("100.64.0.0/10"),
            run_events=EventHub(),
            live=site.live,
            limits=settings.limits(),
            enrolment=Enrolment(site.issuer, site.service.port),
        )
        server = RestServer(create_app(context), settings)
        served = asyncio.create_task(server.serve([sock]))
        await server.listening.wait()
        try:
            yield f"https://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await served


class Node:
    """What an agent has of one account."""

    def __init__(self, site: Site, server: str) -> None:
        self.directory = site.directory / "node"
        self.directory.mkdir(exist_ok=True)
        self.lists = TunnelLists(self.directory)
        self.lists.restore()
        self.lists.expect([LABEL], complete=True)
        connection = EpicConnection(server, "shop", "shop", PASSWORD, "c")
        intake = TunnelIntake(LABEL, self.lists, lambda: None)
        identities, ca = self.directory / "identities", site.control / "ca.crt"
        self.session = TunnelSession(connection, "n1", ca, identities, intake)
        self.connection = connection

    @contextmanager
    def running(self) -> Iterator[None]:
        self.session.start()
        try:
            yield
        finally:
            self.session.stop()
            self.lists.close()

    @property
    def renewer(self) -> CertificateRenewer:
        return self.session._enrolment.renewer

    @property
    def certificate(self) -> bytes:
        (found,) = self.directory.glob("identities/*/agent.pem")
        return found.read_bytes()


async def test_a_node_enrols_follows_its_tunnels_and_tells_what_it_has_carried_out(site: Site) -> None:
    async with serving(site) as server:
        node = Node(site, server)
        with node.running():
            await eventually(lambda: node.lists.complete)
            assert node.lists.tunnels.keys() == {7}
            assert [str(address) for address in node.lists.tunnels[7].endpoints] == ["10.0.0.1"]
            with site.change() as transaction:
                found = transaction.get(Tunnel, "shop", "7")
                gone = found.metadata.model_copy(update={"deletion_timestamp": now()})
                transaction.update(found.model_copy(update={"metadata": gone}))
            await eventually(lambda: not node.lists.tunnels)
            deleted = site.store.get(Tunnel, "shop", "7").metadata.resource_version
            await eventually(lambda: node.lists.revisions()[LABEL] >= deleted)

            async def sample() -> StatusSample:
                return StatusSample({}, {}, {}, {}, 0)

            def listed() -> dict[EpicConnection, ReportedList]:
                applied = node.lists.revisions()[LABEL]
                return {node.connection: ReportedList(frozenset(), applied, node.session.channel)}

            reporter = StatusReporter(sample, listed)
            reporter.wake()
            async with running(asyncio.create_task(reporter.run())):
                await eventually(lambda: (site.live.applied(PLACE)[0] or 0) >= deleted)
    assert node.directory.joinpath("identities").stat().st_mode & 0o077 == 0


async def test_a_node_that_was_refused_keeps_what_it_has_and_enrols_when_it_may(site: Site) -> None:
    async with serving(site) as server:
        node = Node(site, server)
        with node.running():
            await eventually(lambda: node.lists.complete)
            before = node.certificate
            user = site.store.get(User, "shop", "shop")
            with site.change() as transaction:
                transaction.delete(User, "shop", "shop")
            await eventually(lambda: any("refuses user" in line for line in node.session.problems))
            assert node.lists.tunnels.keys() == {7}
            site.put(user)
            site.put(tunnel("shop", 8))
            await eventually(lambda: node.lists.tunnels.keys() == {7, 8})
            assert node.certificate != before
            assert node.session.problems == ()


async def test_a_node_of_an_account_that_is_gone_removes_nothing(site: Site) -> None:
    async with serving(site) as server:
        node = Node(site, server)
        with node.running():
            await eventually(lambda: node.lists.complete)
            with site.change() as transaction:
                transaction.delete(Account, "", "shop")
                transaction.delete(User, "shop", "shop")
            await eventually(lambda: node.session.problems)
            assert node.lists.tunnels.keys() == {7}


async def test_an_agent_that_starts_again_needs_neither_server_nor_another_certificate(site: Site) -> None:
    async with serving(site) as server:
        node = Node(site, server)
        with node.running():
            await eventually(lambda: node.lists.complete)
        before = node.certificate
        again = Node(site, server)
        assert (again.lists.complete, again.lists.tunnels.keys()) == (True, {7})
        site.put(tunnel("shop", 8))
        with again.running():
            await eventually(lambda: again.lists.tunnels.keys() == {7, 8})
        assert again.certificate == before


async def test_a_node_that_hears_nothing_says_so_enrols_anew_and_finds_where_the_server_is_now(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(session, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(session, "_LONGEST_SILENT_SECONDS", 0.1)
    async with serving(site) as server:
        node = Node(site, server)
        with node.running():
            await eventually(lambda: node.lists.complete)
        (address,) = node.directory.glob("identities/*/address")
        address.write_text("127.0.0.1:1")
        user = site.store.get(User, "shop", "shop")
        with site.change() as transaction:
            transaction.delete(User, "shop", "shop")
        again = Node(site, server)
        with again.running():
            await eventually(lambda: any("nothing is heard" in line for line in again.session.problems))
            await eventually(lambda: any("refuses user" in line for line in again.session.problems))
            assert again.certificate == node.certificate
            site.put(user, tunnel("shop", 8))
            await eventually(lambda: again.lists.tunnels.keys() == {7, 8})
            await eventually(lambda: again.session.problems == ())
    assert address.read_text() == f"127.0.0.1:{site.service.port}"


async def test_a_certificate_is_renewed_with_itself_and_shown_by_the_next_connection(site: Site) -> None:
    async with serving(site) as server:
        node = Node(site, server)
        with node.running():
            await eventually(lambda: node.lists.complete)
            before = node.certificate
            later = timedelta(hours=20).total_seconds()
            # When two thirds of its life have passed.
            node.renewer._clock = lambda: time.time() + (later if node.certificate == before else 0)
            assert await node.renewer.look() == 0
            renewed = node.certificate
        assert renewed != before
        site.put(tunnel("shop", 8))
        again = Node(site, server)
        with again.running():
            await eventually(lambda: again.lists.tunnels.keys() == {7, 8})
        assert again.certificate == renewed
