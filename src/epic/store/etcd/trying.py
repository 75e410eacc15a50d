# SPDX-License-Identifier: Apache-2.0
"""Whether a process that has the settings could keep a store in etcd. Nothing is written there."""

from __future__ import annotations

import stat
from pathlib import Path

from epic.errors import Invalid
from epic.proto import etcd_pb2 as pb
from epic.store.etcd.connection import Connection, Member
from epic.store.etcd.engine import check_cluster
from epic.store.etcd.settings import EtcdSettings


async def try_etcd(settings: EtcdSettings) -> bool:
    """Whether there is a store already.

    Raises Invalid for files that cannot be used, Unavailable when no member answers or none lets us read and
    write, and Damaged.
    """
    for path in (settings.authority, settings.certificate, settings.key):
        if path is not None:
            _try_file(path)
    if settings.key is not None and settings.key.stat().st_mode & stat.S_IRWXO:
        raise Invalid(f"{settings.key}: everybody may use this key; chmod o= {settings.key}")
    connection = Connection(settings)
    try:
        await check_cluster(connection)
        return await _ask_for_store(connection, settings.prefix)
    finally:
        await connection.close()


def _try_file(path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}") from error


async def _ask_for_store(connection: Connection, prefix: str) -> bool:
    """etcd looks at permissions for both branches of a transaction, whichever it takes."""
    first, start, end = prefix.encode(), prefix.encode() + b"\0", prefix[:-1].encode() + b"0"
    never = pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=first, mod_revision=2**62)
    request = pb.TxnRequest(
        compare=[never],
        success=[
            pb.RequestOp(request_put=pb.PutRequest(key=first)),
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=start, range_end=end)),
        ],
        failure=[
            pb.RequestOp(request_range=pb.RangeRequest(key=first, range_end=end, keys_only=True, limit=1))
        ],
    )

    async def ask(member: Member, seconds: float) -> pb.TxnResponse:
        return await member.kv.Txn(request, timeout=seconds)

    return bool((await connection.call(ask)).responses[0].response_range.kvs)
