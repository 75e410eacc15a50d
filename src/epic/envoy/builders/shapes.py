# SPDX-License-Identifier: Apache-2.0
"""The shape of a message: all of it but texts and numbers, so that there are few among very many messages."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_VERBATIM = (FieldDescriptor.CPPTYPE_BOOL, FieldDescriptor.CPPTYPE_ENUM)


def shape_of(message: Message) -> str:
    """A digest of which fields are set, all the way down, with what flags and enumerations are.

    How often a field is repeated does not count, nor does the order.
    """
    return sys.intern(blake2b(_outline(message).encode(), digest_size=12).hexdigest())


def _outline(message: Message) -> str:
    name = message.DESCRIPTOR.full_name
    if isinstance(message, Any):
        kind = descriptor_pool.Default().FindMessageTypeByName(message.TypeName())
        return f"{name}({_outline(GetMessageClass(kind).FromString(message.value))})"
    fields = (f"{field.name}={_content(field, value)}" for field, value in message.ListFields())
    return f"{name}({','.join(fields)})"


def _content(field: FieldDescriptor, value: object) -> str:
    if isinstance(value, Mapping) and field.message_type is not None:
        return _content(field.message_type.fields_by_name["value"], value.values())
    return "|".join(sorted({_one(field, each) for each in _each(value)}))


def _one(field: FieldDescriptor, value: object) -> str:
    if isinstance(value, Message):
        return _outline(value)
    return str(value) if field.cpp_type in _VERBATIM else ""


def _each(value: object) -> Iterable[object]:
    if isinstance(value, (str, bytes, Message)) or not isinstance(value, Iterable):
        return (value,)
    return value
