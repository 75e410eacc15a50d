# SPDX-License-Identifier: Apache-2.0
"""The node's certificate: when it is renewed, with what, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from epic.ads.identity.issuer import Issuer
from epic.agent.control.certificate import CertificateRenewer, Life
from epic.pki import operations
from epic.pki.certificates import RequestError
from epic.pki.identity import Identity, read_identity
from epic.pki.operations import Pki
from epic.proto import epic_pb2, epic_pb2_grpc

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(hours=24)


class Control(epic_pb2_grpc.AgentServiceServicer):
    """Signs as the control plane does, on a connection that is there or not."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "control"
        operations.control(Pki(self.path, NOW), ["localhost"], None, timedelta(days=90))
        self.authorities = self.path / "ca.crt"
        self.channel: grpc.aio.Channel | None = None
        self.asked = 0

    async def Report(  # noqa: N802 - the name that gRPC calls
        self, request: epic_pb2.NodeReport, context: object
    ) -> epic_pb2.NodeReportReply:
        raise NotImplementedError

    async def RenewCertificate(  # noqa: N802 - the name that gRPC calls
        self,
        request: epic_pb2.RenewCertificateRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> epic_pb2.RenewCertificateReply:
        self.asked += 1
        issuer = Issuer(self.path / "agents.crt", self.path / "agents.key", self.authorities)
        try:
            return issuer.renew("epic1", request.request)
        except RequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        epic_pb2_grpc.add_AgentServiceServicer_to_server(self, server)
        server.add_insecure_port(f"unix:{self.path}/socket")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{self.path}/socket") as self.channel:
            yield
        self.channel = None
        await server.stop(None)


class Node:
    """A node whose certificate was made at NOW, and its clock."""

    def __init__(self, directory: Path, control: Control, asks_for: str = "epic1") -> None:
        self.path = directory / "node"
        self.time = NOW
        pki = Pki(self.path, NOW)
        for name in ("ca.crt", "agents.crt"):
            pki.write(name, (control.path / name).read_bytes(), 0o644)
        request = operations.request(pki, "epic1")["request"]
        signed = operations.sign(Pki(control.path, NOW), "epic1", request.encode(), DAY)
        operations.install(pki, signed["certificate"].encode())
        self.renewer = CertificateRenewer(
            self.path,
            asks_for,
            lambda: control.channel,
            lambda: self.time.timestamp(),  # noqa: PLW0108 - the time changes
        )

    @property
    def identity(self) -> Identity:
        found = read_identity(self.path / "agent.pem")
        assert found is not None
        return found

    async def look(self, hours: float) -> float:
        """Let so many hours have passed since the certificate was made."""
        self.time = NOW + timedelta(hours=hours)
        return await self.renewer.look()


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path)


@pytest.fixture
def node(tmp_path: Path, control: Control) -> Node:
    return Node(tmp_path, control)


def test_nodes_renew_at_two_thirds_of_the_life_but_not_all_at_once() -> None:
    life = Life(0, 86400)
    dues = {life.due(f"epic{number}") / 86400 for number in range(200)}
    assert all(2 / 3 - 0.05 <= due <= 2 / 3 + 0.05 for due in dues)
    assert len(dues) == 200
    assert life.due("epic1") == life.due("epic1"), "a node does not change its mind"


async def test_a_young_certificate_is_left_alone(node: Node, control: Control) -> None:
    async with control.serving():
        assert 0 < await node.look(hours=12) <= 60
    assert control.asked == 0
    assert node.renewer.life == Life(int(NOW.timestamp()), int((NOW + DAY).timestamp()))


async def test_a_certificate_is_renewed_in_time_with_another_key(node: Node, control: Control) -> None:
    before = node.identity
    async with control.serving():
        await node.look(hours=18)
    after = node.identity
    assert after.key != before.key
    assert after.certificate.not_valid_after_utc > before.certificate.not_valid_after_utc
    assert node.renewer.life is not None
    assert node.renewer.life.not_after == int(after.certificate.not_valid_after_utc.timestamp())
    assert node.renewer.problems == ()
    assert sorted(path.name for path in node.path.iterdir()) == ["agent.pem", "agents.crt", "ca.crt"]


async def test_a_control_plane_that_is_away_for_a_while_is_no_problem(node: Node, control: Control) -> None:
    before = node.identity.certificate
    pauses = [await node.look(hours=18) for _ in range(3)]
    assert pauses == [5, 10, 20]
    assert node.renewer.problems == ()
    assert node.identity.certificate == before
    async with control.serving():
        await node.look(hours=18)
    assert node.identity.certificate != before


async def test_a_certificate_that_could_not_be_renewed_for_long_is_a_problem(node: Node) -> None:
    await node.look(hours=21)
    (problem,) = node.renewer.problems
    assert problem.startswith("the certificate of this node ends at 2026-01-02 00:00 UTC; not renewed: ")
    assert problem.endswith("there is no connection to the control plane")


async def test_a_node_that_was_off_for_too_long_is_told_how_it_comes_back(
    node: Node, control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await node.look(hours=200)
    (problem,) = node.renewer.problems
    assert "ended at 2026-01-02 00:00 UTC" in problem
    assert "run site.yml for this host" in problem
    pki = Pki(node.path, node.time)
    request = operations.request(pki, "epic1")["request"]
    signed = operations.sign(Pki(control.path, node.time), "epic1", request.encode(), DAY)
    operations.install(pki, signed["certificate"].encode())
    await node.look(hours=201)
    assert node.renewer.problems == ()
    assert caplog.records[-1].message.startswith("over: ")


async def test_a_refusal_is_quoted(tmp_path: Path, control: Control) -> None:
    node = Node(tmp_path, control, asks_for="epic9")
    async with control.serving():
        await node.look(hours=21)
    (problem,) = node.renewer.problems
    assert "the control plane says INVALID_ARGUMENT: the request is for 'epic9'" in problem


@pytest.mark.parametrize("content", [None, "-----BEGIN"])
async def test_a_missing_or_damaged_identity_is_a_problem_and_no_failure(
    node: Node, content: str | None
) -> None:
    if content is None:
        (node.path / "agent.pem").unlink()
    else:
        (node.path / "agent.pem").write_text(content)
    assert await node.look(hours=1) == 60
    (problem,) = node.renewer.problems
    assert "site.yml" in problem
    assert node.renewer.life is None


async def test_other_authorities_are_trusted_from_the_next_connection_on(
    node: Node, control: Control, tmp_path: Path
) -> None:
    other = Pki(tmp_path / "other", NOW)
    operations.control(other, ["localhost"], None, timedelta(days=90))
    both = (control.path / "ca.crt").read_bytes() + (other.path / "ca.crt").read_bytes()
    control.authorities = tmp_path / "both.crt"
    control.authorities.write_bytes(both)
    async with control.serving():
        await node.look(hours=18)
    assert (node.path / "ca.crt").read_bytes() == both


async def test_nonsense_is_not_trusted(node: Node, control: Control, tmp_path: Path) -> None:
    before = (node.path / "ca.crt").read_bytes()
    control.authorities = tmp_path / "nonsense.crt"
    control.authorities.write_text("nonsense")
    async with control.serving():
        await node.look(hours=18)
    assert (node.path / "ca.crt").read_bytes() == before


async def test_it_is_renewed_by_itself(node: Node, control: Control) -> None:
    node.time = NOW + timedelta(hours=18)
    before = node.identity.certificate
    async with control.serving():
        task = asyncio.create_task(node.renewer.run())
        async with asyncio.timeout(20):
            while not control.asked or node.identity.certificate == before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
