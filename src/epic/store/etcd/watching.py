# SPDX-License-Identifier: Apache-2.0
"""Watching a range of etcd's keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import grpc.aio

from epic.errors import Compacted, Unavailable
from epic.proto import etcd_pb2 as pb
from epic.store.engine import Change, Changes
from epic.store.etcd.connection import REQUIRE_LEADER, Connection, explain
from epic.store.etcd.sizes import unpack

if TYPE_CHECKING:
    Stream = grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]

_PROGRESS_SECONDS = 5.0
_SILENCE_SECONDS = 3 * _PROGRESS_SECONDS


async def watch(
    connection: Connection, request: pb.WatchCreateRequest, offset: int, root: int
) -> AsyncGenerator[Changes, None]:
    """Changes for ever; `offset` is added to etcd's revisions, `root` bytes are cut off its keys."""
    member = connection.member
    stream = member.watch.Watch(metadata=REQUIRE_LEADER)
    asking: asyncio.Task[None] | None = None
    try:
        await stream.write(pb.WatchRequest(create_request=request))
        while True:
            response = await _read(stream, member.endpoint)
            if response.created:
                asking = asyncio.create_task(_ask_for_progress(stream))
            elif response.events:
                # The header may be ahead of the events.
                yield Changes(
                    response.events[-1].kv.mod_revision + offset,
                    [_change(event, offset, root) for event in response.events],
                )
            else:
                yield Changes(response.header.revision + offset, ())
    except grpc.aio.AioRpcError as error:
        connection.leave(member)
        raise explain(error, member.endpoint) from error
    except TimeoutError as error:
        connection.leave(member)
        raise Unavailable(f"etcd at {member.endpoint}: silent for {_SILENCE_SECONDS:.0f} s") from error
    finally:
        if asking is not None:
            asking.cancel()
        stream.cancel()


async def _read(stream: Stream, endpoint: str) -> pb.WatchResponse:
    async with asyncio.timeout(_SILENCE_SECONDS):
        response = await stream.read()
    if not isinstance(response, pb.WatchResponse):
        raise Unavailable(f"etcd at {endpoint}: ended the watch")
    if response.compact_revision:
        raise Compacted("the revision is not kept any more; list again")
    if response.canceled:
        raise Unavailable(f"etcd at {endpoint}: ended the watch: {response.cancel_reason}")
    return response


async def _ask_for_progress(stream: Stream) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        await stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))


def _change(event: pb.Event, offset: int, root: int) -> Change:
    path = event.kv.key[root:].decode()
    value = None if event.type == pb.Event.DELETE else unpack(event.kv.value)
    return Change(path, event.kv.mod_revision + offset, value)
