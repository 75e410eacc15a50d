# SPDX-License-Identifier: Apache-2.0
"""Leases of etcd's: a key that goes when its holder does not say for a while that it lives."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc.aio

from epic.errors import EpicError, NotFound, Unavailable
from epic.proto import etcd_pb2 as pb
from epic.store.etcd.connection import REQUIRE_LEADER, Connection, Member, explain

_log = logging.getLogger(__name__)


class EtcdLease:
    """A lease that is kept alive in the background until it is released or lost."""

    def __init__(self, connection: Connection, identity: int, seconds: float, revision: int) -> None:
        self._connection = connection
        self._identity = identity
        self._seconds = seconds
        self._revision = revision
        self._lost = asyncio.Event()
        # Counted from before the question: etcd counts from later on.
        self._until = time.monotonic() + seconds
        self._keeping = asyncio.create_task(self._keep())

    @property
    def revision(self) -> int:
        """Of the key."""
        return self._revision

    async def wait_lost(self) -> None:
        """Return when the lease is not ours any more, or may not be."""
        await self._lost.wait()

    async def release(self) -> None:
        """Remove the key and end the lease."""
        self._keeping.cancel()
        self._lost.set()
        await revoke(self._connection, self._identity)

    async def _keep(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(min(self._seconds / 3, left))
            asked = time.monotonic()
            try:
                granted = await self._keep_once()
            except EpicError as error:
                _log.warning("lease %x: %s", self._identity, error)
                continue
            if granted <= 0:
                break
            self._until = asked + granted
        self._lost.set()

    async def _keep_once(self) -> int:
        member = self._connection.member
        stream = member.lease.LeaseKeepAlive(metadata=REQUIRE_LEADER)
        try:
            async with asyncio.timeout(self._seconds / 3):
                await stream.write(pb.LeaseKeepAliveRequest(ID=self._identity))
                answer = await stream.read()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, TimeoutError) as error:
            self._connection.leave(member)
            if isinstance(error, grpc.aio.AioRpcError):
                raise explain(error, member.endpoint) from error
            raise Unavailable(f"etcd at {member.endpoint}: no answer") from error
        finally:
            stream.cancel()
        if not isinstance(answer, pb.LeaseKeepAliveResponse):
            raise Unavailable(f"etcd at {member.endpoint}: no answer")
        return answer.TTL


async def wait_for_lease(
    connection: Connection,
    put: Callable[[int], Awaitable[int | None]],
    wait_free: Callable[[], Awaitable[None]],
    seconds: float,
) -> EtcdLease:
    """Try `put` with a new lease whenever the key is free; it returns the key's revision, or None."""
    while True:
        identity, granted = await _grant(connection, seconds)
        try:
            revision = await put(identity)
        except BaseException:
            with suppress(EpicError):
                await revoke(connection, identity)
            raise
        if revision is not None:
            return EtcdLease(connection, identity, granted, revision)
        await revoke(connection, identity)
        await wait_free()


async def revoke(connection: Connection, identity: int) -> None:
    """End a lease, and with it the keys that hang on it."""

    async def ask(member: Member, timeout: float) -> pb.LeaseRevokeResponse:  # noqa: ASYNC109
        return await member.lease.LeaseRevoke(pb.LeaseRevokeRequest(ID=identity), timeout=timeout)

    with suppress(NotFound):
        await connection.call(ask)


async def _grant(connection: Connection, seconds: float) -> tuple[int, float]:
    async def ask(member: Member, timeout: float) -> pb.LeaseGrantResponse:  # noqa: ASYNC109
        request = pb.LeaseGrantRequest(TTL=math.ceil(seconds))
        return await member.lease.LeaseGrant(request, timeout=timeout)

    answer = await connection.call(ask)
    return answer.ID, answer.TTL
