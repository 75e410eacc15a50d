# SPDX-License-Identifier: Apache-2.0
"""Calls to etcd: to the member that answers, over TLS, and what its errors mean."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from epic.errors import (
    Compacted,
    Damaged,
    EpicError,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StorageFull,
    Unavailable,
)
from epic.proto import etcd_pb2_grpc
from epic.store.etcd.settings import EtcdSettings

if TYPE_CHECKING:
    from epic.proto.etcd_pb2_grpc import KVAsyncStub, LeaseAsyncStub, MaintenanceAsyncStub, WatchAsyncStub

T = TypeVar("T")

_log = logging.getLogger(__name__)

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # What a connection may take to be made, TLS included.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Or the next channel gets the broken connection of the last one.
    ("grpc.use_local_subchannel_pool", 1),
)
# A member that lost its leader ends streams with this, instead of staying silent.
REQUIRE_LEADER = (("hasleader", "true"),)
_REOPEN_SECONDS = 1.0
_UNREACHABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
_MEANINGS: tuple[tuple[grpc.StatusCode, str, type[EpicError], str], ...] = (
    (grpc.StatusCode.OUT_OF_RANGE, "compacted", Compacted, "list again"),
    (grpc.StatusCode.OUT_OF_RANGE, "future revision", Invalid, "it is not reached yet"),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "space exceeded",
        StorageFull,
        "nothing of this write was stored: defragment etcd or raise its quota, then disarm its alarm",
    ),
    (grpc.StatusCode.DATA_LOSS, "", Damaged, "restore a backup"),
    (grpc.StatusCode.INVALID_ARGUMENT, "", Invalid, "it was refused"),
    (grpc.StatusCode.NOT_FOUND, "", NotFound, "it may have ended"),
)
_NOT_SENT = ("failed to connect", "etcdserver: no leader", "etcdserver: too many requests", "DNS resolution")


class Member:
    """A channel to one member of the cluster."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.endpoint = endpoint
        self.opened = time.monotonic()
        self._channel = (
            grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
            if credentials is not None
            else grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        )
        self.kv: KVAsyncStub = etcd_pb2_grpc.KVStub(self._channel)
        self.watch: WatchAsyncStub = etcd_pb2_grpc.WatchStub(self._channel)
        self.lease: LeaseAsyncStub = etcd_pb2_grpc.LeaseStub(self._channel)
        self.maintenance: MaintenanceAsyncStub = etcd_pb2_grpc.MaintenanceStub(self._channel)

    async def close(self, grace: float) -> None:
        """Close the channel; calls under way have `grace` seconds."""
        await self._channel.close(grace)


class Connection:
    """The member in use. When it does not answer, the next one is; certificates are read anew each time."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._next = 0
        self._closing: set[asyncio.Task[None]] = set()
        self.member = self._open_next()

    async def call(self, ask: Callable[[Member, float], Awaitable[T]], *, writing: bool = False) -> T:
        """Ask the member in use, then the others. A write is repeated only if it surely did not arrive.

        `ask` gets the member and the seconds that the call may take.
        """
        left = len(self._settings.endpoints)
        while True:
            member = self.member
            try:
                return await ask(member, self._settings.timeout_seconds)
            except grpc.aio.AioRpcError as error:
                left -= 1
                if error.code() in _UNREACHABLE:
                    self.leave(member)
                    if left > 0 and (not writing or _is_not_sent(error)):
                        continue
                raise explain(error, member.endpoint, writing=writing) from error

    def leave(self, member: Member) -> None:
        """Use another member from now on, or the same with a new connection, if this one is in use."""
        alone = len(self._settings.endpoints) == 1
        if member is not self.member or (alone and time.monotonic() - member.opened < _REOPEN_SECONDS):
            return
        self.member = self._open_next()
        _log.warning("etcd at %s does not answer; asking %s", member.endpoint, self.member.endpoint)
        closing = asyncio.create_task(member.close(self._settings.timeout_seconds))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all channels."""
        await self.member.close(0)
        await asyncio.gather(*self._closing)

    def _open_next(self) -> Member:
        endpoint = self._settings.endpoints[self._next % len(self._settings.endpoints)]
        self._next += 1
        return Member(endpoint, _credentials(self._settings))


def explain(error: grpc.aio.AioRpcError, endpoint: str, *, writing: bool = False) -> EpicError:
    """What an answer of etcd's means for who asked."""
    details = f"etcd at {endpoint}: {error.details()}"
    for code, text, kind, advice in _MEANINGS:
        if error.code() is code and text in details:
            return kind(f"{details}; {advice}")
    if writing and error.code() in _UNREACHABLE and not _is_not_sent(error):
        return OutcomeUnknown(f"{details}; whether the write was stored is not known")
    return Unavailable(details)


def _is_not_sent(error: grpc.aio.AioRpcError) -> bool:
    return (error.details() or "").startswith(_NOT_SENT)


def _credentials(settings: EtcdSettings) -> grpc.ChannelCredentials | None:
    if settings.authority is None:
        return None
    try:
        return grpc.ssl_channel_credentials(
            settings.authority.read_bytes(),
            None if settings.key is None else settings.key.read_bytes(),
            None if settings.certificate is None else settings.certificate.read_bytes(),
        )
    except OSError as error:
        raise Unavailable(f"{error.filename}: {error.strerror}") from error
