# SPDX-License-Identifier: Apache-2.0
"""What fits into etcd: values that are packed, and operations in as many transactions as they take. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from epic.errors import Invalid
from epic.proto import etcd_pb2 as pb

MOST_OPERATIONS = 120
"""etcd takes 128 in a transaction (`--max-txn-ops`), and as many comparisons; some are the engine's own."""
MOST_BYTES = 1024 * 1024
"""etcd takes 1.5 MiB in a request (`--max-request-bytes`)."""
_PACKED = b"Z"
"""What packed values begin with; others begin with a digit of their checksum."""
_PACKED_FROM = 4096


def pack(value: bytes) -> bytes:
    """The value as it lies in etcd: packed, if it is large."""
    return _PACKED + zlib.compress(value, 1) if len(value) >= _PACKED_FROM else value


def unpack(value: bytes) -> bytes:
    """The value; what cannot be unpacked stays as it is, and its checksum does not fit."""
    if not value.startswith(_PACKED):
        return value
    try:
        return zlib.decompress(value[1:])
    except zlib.error:
        return value


def in_parts(operations: Mapping[str, pb.RequestOp]) -> list[dict[str, pb.RequestOp]]:
    """The operations by their paths, in parts of which each fits; raises Invalid for one that does not."""
    parts: list[dict[str, pb.RequestOp]] = [{}]
    size = 0
    for path, operation in operations.items():
        length = operation.ByteSize()
        if length > MOST_BYTES:
            raise Invalid(f"{path}: {length} bytes in etcd, packed; expected at most {MOST_BYTES}")
        if parts[-1] and (len(parts[-1]) == MOST_OPERATIONS or size + length > MOST_BYTES):
            parts.append({})
            size = 0
        parts[-1][path] = operation
        size += length
    return parts
