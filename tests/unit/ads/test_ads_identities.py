# SPDX-License-Identifier: Apache-2.0
"""Nodes' certificates over real mutual TLS: renewed, replaced, revoked and worth nothing from that moment."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb
from grpc_outcome import code_of
from node_certificates import LIFE, SERVER, issue, issue_workload, issuer
from stores import open_store

from epic.ads import listening
from epic.ads import service as module
from epic.ads.delta.client import DeltaClient, mtls_channel
from epic.ads.identity.issuer import Issuer
from epic.ads.service import AdsService
from epic.ads.settings import AdsSettings
from epic.ads.snapshot import INSTANCE, TYPES, Resources
from epic.model.base import Metadata
from epic.model.nodes import NodeRevocation, NodeRevocationSpec
from epic.model.resources import Node
from epic.pki import certificates as certs
from epic.pki import directory as files
from epic.pki import operations
from epic.pki.identity import read_identity
from epic.pki.operations import Pki
from epic.proto import epic_pb2, epic_pb2_grpc

DENIED = grpc.StatusCode.PERMISSION_DENIED
MOST = 1 << 20
LARGE = "x" * (2 * MOST)


class Site:
    """A control plane with the registered node epic1."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.control = directory / "control"
        issue(directory, "epic1")
        self.store = open_store(directory / "epic.db")
        settings = AdsSettings(
            listen="127.0.0.1",
            port=0,
            certificate=self.control / "server.crt",
            key=self.control / "server.key",
            issuer=issuer(directory),
            envoy_binary=directory / "no-envoy",
        )
        self.service = AdsService(self.store, settings)
        self.register("epic1")

    def register(self, name: str) -> None:
        with self.store.transaction() as transaction:
            transaction.create(
                Node.model_validate({"metadata": {"name": name}, "spec": {"address": "192.0.2.1"}})
            )

    def revoke(self, name: str, before: datetime | None = None) -> None:
        """What the forced removal of a node does to its certificate."""
        spec = NodeRevocationSpec(before=before or datetime.now(UTC))
        with self.store.transaction() as transaction:
            if transaction.find(Node, "", name) is not None:
                transaction.delete(Node, "", name)
            transaction.create(NodeRevocation(metadata=Metadata(name=name), spec=spec))

    def channel(self, node: str = "epic1") -> grpc.aio.Channel:
        pki = self.directory / node
        return mtls_channel(f"127.0.0.1:{self.service.port}", pki / "ca.crt", pki / "agent.pem")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.service.run())
        async with asyncio.timeout(60):
            while not self.service.port:  # noqa: ASYNC110 - what is awaited has no event
                await asyncio.sleep(0.01)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.store.close()


async def open_stream(channel: grpc.aio.Channel, node: str = "epic1") -> Any:
    """A stream on which the node has been answered."""
    call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
    await call.write(pb.DeltaDiscoveryRequest(node=base_pb2.Node(id=node), type_url=INSTANCE))
    async with asyncio.timeout(60):
        await call.read()
    return call


async def refusal(call: Any) -> tuple[grpc.StatusCode, bool]:
    """How the call is refused, and whether it says that the node was removed."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async with asyncio.timeout(60):
            await call
    return refused.value.code(), ("epic-node-removed", "true") in tuple(refused.value.trailing_metadata())


async def report(channel: grpc.aio.Channel, node: str = "epic1") -> None:
    await epic_pb2_grpc.AgentServiceStub(channel).Report(epic_pb2.NodeReport(node=node), timeout=60)


async def renew(channel: grpc.aio.Channel, request: bytes) -> epic_pb2.RenewCertificateReply:
    asked = epic_pb2.RenewCertificateRequest(request=request)
    reply = await epic_pb2_grpc.AgentServiceStub(channel).RenewCertificate(asked, timeout=60)
    assert isinstance(reply, epic_pb2.RenewCertificateReply)
    return reply


def new_request(site: Site, node: str = "epic1", name: str | None = None) -> bytes:
    pki = Pki(site.directory / node, datetime.now(UTC))
    made = operations.request(pki, name or node, renew=True)["request"]
    assert isinstance(made, str)
    return made.encode()


async def test_the_stream_of_a_removed_node_ends_at_once_and_says_why(site: Site) -> None:
    async with site.serving(), site.channel() as channel:
        stream = await open_stream(channel)
        site.revoke("epic1")
        start = asyncio.get_running_loop().time()
        assert await refusal(stream.read()) == (DENIED, True)
        assert asyncio.get_running_loop().time() - start < 1


async def test_the_certificate_of_a_removed_node_is_worth_nothing_from_that_moment(site: Site) -> None:
    async with site.serving(), site.channel() as channel:
        await report(channel)
        request = new_request(site)
        site.revoke("epic1")
        assert await refusal(report(channel)) == (DENIED, True)
        assert await refusal(renew(channel, request)) == (DENIED, True)
        assert await refusal(open_stream(channel)) == (DENIED, True)
        async with site.channel() as another:
            assert await refusal(open_stream(another)) == (DENIED, True)


async def test_a_certificate_that_is_made_while_its_node_is_removed_is_not_handed_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Issuer.renew

    def renew_late(self: Issuer, node: str, request: bytes) -> epic_pb2.RenewCertificateReply:
        site.revoke(node)
        return make(self, node, request)

    monkeypatch.setattr(Issuer, "renew", renew_late)
    async with site.serving(), site.channel() as channel:
        assert await refusal(renew(channel, new_request(site))) == (DENIED, True)


class Nothing:
    """An agent that takes everything and keeps nothing."""

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        return None

    def versions(self, type_url: str) -> Mapping[str, str]:
        return {}


async def test_a_client_is_told_of_the_removal_on_its_stream_and_at_each_attempt(site: Site) -> None:
    told: list[float] = []
    client = DeltaClient(site.channel, "epic1", TYPES, Nothing(), lambda: told.append(time.monotonic()))
    async with site.serving():
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(60):
            while not site.service._server.nodes:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
            assert told == []
            begin = time.monotonic()
            site.revoke("epic1")
            while len(told) < 2:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
        task.cancel()
    assert told[0] - begin < 1


async def test_a_host_that_was_made_a_node_again_is_served_but_its_old_certificate_is_not(site: Site) -> None:
    issue(site.directory, "epic1", at=datetime.now(UTC) - timedelta(hours=1))
    old = (site.directory / "epic1/agent.pem").read_bytes()
    site.revoke("epic1", before=datetime.now(UTC) - timedelta(minutes=1))
    issue(site.directory, "epic1")
    site.register("epic1")
    async with site.serving():
        async with site.channel() as channel:
            await report(channel)
            await open_stream(channel)
        (site.directory / "epic1/agent.pem").write_bytes(old)
        async with site.channel() as channel:
            assert await refusal(report(channel)) == (DENIED, True)


async def test_a_node_that_is_not_registered_is_refused_but_not_told_to_drop_everything(site: Site) -> None:
    issue(site.directory, "epic9")
    async with site.serving(), site.channel("epic9") as channel:
        assert await refusal(report(channel, "epic9")) == (DENIED, False)
        assert await refusal(open_stream(channel, "epic9")) == (DENIED, False)
        site.register("epic9")
        await report(channel, "epic9")


async def test_a_node_speaks_for_itself_only(site: Site) -> None:
    issue(site.directory, "epic2")
    site.register("epic2")
    async with site.serving(), site.channel("epic2") as channel:
        assert await refusal(report(channel)) == (DENIED, False)
        assert await refusal(open_stream(channel)) == (DENIED, False)


async def test_a_connection_outlives_its_certificate_by_seconds_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WATCH_SILENCE_SECONDS", 0.1)
    issue(site.directory, "epic1", life=timedelta(seconds=2))
    async with site.serving(), site.channel() as channel:
        stream = await open_stream(channel)
        assert await refusal(stream.read()) == (DENIED, False)
        assert await refusal(report(channel)) == (DENIED, False)


async def test_a_certificate_of_the_servers_authority_is_not_a_nodes(site: Site) -> None:
    key = files.new_key()
    authority = certs.Authority(
        x509.load_pem_x509_certificate((site.control / "ca.crt").read_bytes()),
        files.read_key(site.control / "ca.key") or key,
    )
    made = certs.agent_certificate(
        authority, certs.agent_request(key, "epic1"), "epic1", datetime.now(UTC), LIFE
    )
    (site.directory / "epic1/agent.pem").write_bytes(files.key_pem(key) + files.certificate_pem(made))
    async with site.serving(), site.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await report(channel)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_node_renews_its_certificate_on_the_connection_that_it_has(site: Site) -> None:
    old = read_identity(site.directory / "epic1/agent.pem")
    async with site.serving(), site.channel() as channel:
        reply = await renew(channel, new_request(site))
        assert reply.authorities == (site.control / "ca.crt").read_bytes()
        operations.install(Pki(site.directory / "epic1", datetime.now(UTC)), reply.certificate)
        await report(channel)
        async with site.channel() as another:
            await report(another)
    new = read_identity(site.directory / "epic1/agent.pem")
    assert old is not None
    assert new is not None
    assert new.key != old.key
    assert new.certificate.not_valid_after_utc - datetime.now(UTC) > LIFE - timedelta(minutes=1)


@pytest.mark.parametrize("name", ["epic2", ""])
async def test_a_node_gets_no_certificate_in_another_name(site: Site, name: str) -> None:
    request = new_request(site, name=name) if name else b"-----BEGIN"
    async with site.serving(), site.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await renew(channel, request)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_without_the_agents_authority_nothing_is_signed_and_all_goes_on(site: Site) -> None:
    request = new_request(site)
    async with site.serving(), site.channel() as channel:
        (site.control / "agents.key").unlink()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await renew(channel, request)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        await report(channel)


async def shown_serial(site: Site) -> int:
    """The serial number of the certificate that the server shows now."""
    context = ssl.create_default_context(cafile=str(site.control / "ca.crt"))
    context.load_cert_chain(site.directory / "epic1/agent.pem")
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", site.service.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_the_servers_renewed_certificate_is_shown_without_a_restart(site: Site) -> None:
    async with site.serving(), site.channel() as channel:
        await report(channel)
        before = await shown_serial(site)
        renewed = operations.control(
            Pki(site.control, datetime.now(UTC)), [*SERVER, "localhost"], None, timedelta(days=30)
        )
        assert renewed["written"] == ["server.crt"]
        assert await shown_serial(site) != before
        await report(channel)


async def test_a_server_certificate_that_cannot_be_read_leaves_the_one_before(site: Site) -> None:
    async with site.serving():
        before = await shown_serial(site)
        (site.control / "server.crt").unlink()
        assert await shown_serial(site) == before


@pytest.fixture
def small_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger is answered otherwise, by whoever reads it."""
    options = {**dict(listening._OPTIONS), "grpc.max_receive_message_length": MOST}
    monkeypatch.setattr(listening, "_OPTIONS", tuple(options.items()))


@pytest.mark.usefixtures("small_messages")
async def test_nothing_that_a_workload_node_sends_to_the_port_of_epic_nodes_is_read(site: Site) -> None:
    issue_workload(site.directory, "w1")
    codes = {}
    async with site.serving():
        for node in ("epic1", "w1"):
            async with site.channel(node) as channel:
                agents = epic_pb2_grpc.AgentServiceStub(channel)
                stream = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources
                first = pb.DeltaDiscoveryRequest(type_url=INSTANCE, response_nonce=LARGE)
                asked = epic_pb2.RenewCertificateRequest(request=LARGE.encode())
                calls: list[Callable[[], grpc.aio.Call]] = [
                    partial(agents.Report, epic_pb2.NodeReport(node=LARGE), timeout=60),
                    partial(agents.RenewCertificate, asked, timeout=60),
                    partial(stream, [first], timeout=60),
                ]
                codes[node] = {await code_of(call) for call in calls}
        async with site.channel("epic1") as channel:
            await report(channel)
            await open_stream(channel)
    assert codes["w1"] == {DENIED}
    assert codes["epic1"] == {grpc.StatusCode.RESOURCE_EXHAUSTED}, "who is read hears otherwise"
