# SPDX-License-Identifier: Apache-2.0
"""Workload nodes' certificates are signed beside what serves all others, and from short requests only."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from workload_site import ACCOUNTS, Site, eventually, tunnel

from epic.ads.identity.issuer import Issuer
from epic.live import Place
from epic.pki import certificates as certs
from epic.pki import directory as files
from epic.pki import operations
from epic.pki.certificates import REQUEST_BYTES
from epic.pki.operations import Pki
from epic.proto import epic_pb2, epic_pb2_grpc
from epic.workloads import service

_SECONDS = 60.0
# More than the event loop's executor has threads here.
_CALLS = 6


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    for number, account in enumerate(ACCOUNTS):
        site.put(tunnel(account, 7 + number))
    yield site
    site.store.close()


def renewal(channel: grpc.aio.Channel, request: bytes = b"") -> asyncio.Future[object]:
    asked = epic_pb2.RenewCertificateRequest(request=request)
    stub = epic_pb2_grpc.WorkloadServiceStub(channel)
    return asyncio.ensure_future(stub.RenewCertificate(asked, timeout=_SECONDS))


class HangingDisk:
    """What the authority's key is read from: it goes on when it is told to."""

    def __init__(self) -> None:
        self.readers: set[str] = set()
        self.goes_on = threading.Event()

    def read(self, *_: object) -> certs.Authority:
        self.readers.add(threading.current_thread().name)
        self.goes_on.wait()
        raise OSError("the disk is gone")


@asynccontextmanager
async def hanging_disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HangingDisk]:
    """The disk of the authority hangs meanwhile, and the event loop's executor has two threads."""
    disk = HangingDisk()
    with ThreadPoolExecutor(2) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        with monkeypatch.context() as patch:
            patch.setattr(Issuer, "_authority", disk.read)
            try:
                yield disk
            finally:
                disk.goes_on.set()


@pytest.mark.parametrize("way", ["renewals", "enrolments"])
async def test_who_does_something_else_does_not_wait_for_certificates_that_cannot_be_signed(
    site: Site, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with site.serving():
        path, other = await site.enrol("shop"), await site.enrol("bank")
        async with site.channel(path) as channel, site.channel(other) as undisturbed:
            async with hanging_disk(monkeypatch) as disk:
                calls: list[asyncio.Future[object]] = [
                    renewal(channel)
                    if way == "renewals"
                    else asyncio.ensure_future(site.ask("shop", "n1", "request"))
                    for _ in range(_CALLS)
                ]
                await eventually(lambda: disk.readers)
                async with asyncio.timeout(_SECONDS):
                    assert await asyncio.to_thread(lambda: 7) == 7
                    part = epic_pb2.WorkloadReport(applied=5)
                    await epic_pb2_grpc.WorkloadServiceStub(undisturbed).Report(iter([part]))
            await asyncio.gather(*calls, return_exceptions=True)
    assert {name.rpartition("_")[0] for name in disk.readers} == {"workload-certificates"}
    assert site.live.applied(Place("bank", "c", "n1"))[0] == 5


async def test_a_request_for_a_certificate_that_is_too_long_is_not_read(site: Site) -> None:
    name = "n" * 60
    pem = certs.agent_request(files.new_key(), name).public_bytes(Encoding.PEM)
    long = pem + b"\n" * (REQUEST_BYTES - len(pem) + 1)
    with pytest.raises(certs.RequestError, match="at most 8192"):
        certs.read_request(long)
    assert certs.read_request(long[:-1])
    async with site.serving(), site.channel(await site.enrol("shop")) as channel:
        assert await renewal(channel, pem)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await renewal(channel, long)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def identify_epic_node(site: Site) -> Path:
    """The directory of an EPIC node with its certificate, which is of the same authority."""
    now = datetime.now(UTC).replace(microsecond=0)
    control, node = Pki(site.control, now), Pki(site.directory / "e1", now)
    node.path.mkdir()
    for known in ("ca.crt", "agents.crt"):
        shutil.copy(control.path / known, node.path / known)
    asked = operations.request(node, "e1", renew=True)["request"]
    signed = operations.sign(control, "e1", asked.encode(), timedelta(hours=1))
    operations.install(node, signed["certificate"].encode())
    return node.path


async def test_nothing_is_read_of_who_is_no_workload_node(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 1 << 20
    # What is larger is answered otherwise, by whoever reads it.
    options = {**dict(service._OPTIONS), "grpc.max_receive_message_length": most}
    monkeypatch.setattr(service, "_OPTIONS", tuple(options.items()))
    codes = []
    async with site.serving():
        for path in (identify_epic_node(site), await site.enrol("shop")):
            async with site.channel(path) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await renewal(channel, b"x" * (2 * most))
                codes.append(refused.value.code())
    assert codes == [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED]
