"""What the control plane sent last, on disk: one message with all resources and their versions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError

from epic.ads.snapshot import Versioned
from epic.agent.files import write_atomically
from epic.agent.held import Held

log = logging.getLogger(__name__)

FILE = "resources.bin"
_FORMAT = "epic-agent-1"
_QUIET_SECONDS = 0.05
_VERSION_TAG, _RESOURCES_TAG = 0x0A, 0x12

Stored = tuple[str, str, str, bytes]
"""Type, name, version and content."""


def encode(resources: Iterable[Stored]) -> Iterator[bytes]:
    """The resources as a DeltaDiscoveryResponse, part by part."""
    yield discovery_pb2.DeltaDiscoveryResponse(system_version_info=_FORMAT).SerializeToString()
    for type_url, name, version, content in resources:
        body = Any(type_url=type_url, value=content)
        item = discovery_pb2.Resource(name=name, version=version, resource=body).SerializeToString()
        yield bytes((_RESOURCES_TAG, *_varint(len(item)))) + item


def decode(content: bytes) -> Iterator[tuple[str, str, Versioned]]:
    """The inverse, as types, names and resources; ValueError for other bytes."""
    known = False
    for tag, part in _fields(content):
        if tag == _VERSION_TAG:
            known = part == _FORMAT.encode()
        elif tag == _RESOURCES_TAG and known:
            try:
                item = discovery_pb2.Resource.FromString(part)
            except DecodeError as error:
                raise ValueError(f"is damaged: {error}") from error
            yield item.resource.type_url, item.name, Versioned(item.version, _copy(item.resource))
    if not known:
        raise ValueError(f"has another format; this agent reads {_FORMAT!r}")


def load(directory: Path) -> Held | None:
    """What was stored; None when there is nothing that can be read."""
    path = directory / FILE
    held = Held()
    try:
        for type_url, name, resource in decode(path.read_bytes()):
            held.update(type_url, {name: resource})
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.error("%s %s; waiting for the control plane to send everything again", path, error)
        return None
    held.heard_all()
    return held


def _copy(body: Any) -> Any:
    """Of its own, so that what it was read with can go."""
    return Any(type_url=body.type_url, value=body.value)


def _varint(number: int) -> Iterator[int]:
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that has only strings, bytes and messages."""
    place = 0
    while place < len(content):
        tag, length, shift = content[place], 0, 0
        while True:
            place += 1
            if place >= len(content) or shift > 28:
                raise ValueError("is damaged: it ends early")
            length |= (content[place] & 0x7F) << shift
            shift += 7
            if content[place] < 0x80:
                break
        place += 1
        if place + length > len(content):
            raise ValueError("is damaged: it ends early")
        yield tag, content[place : place + length]
        place += length


class Saver:
    """Writes the latest snapshot soon after it was given; many changes at once become one write."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._latest: Held | None = None
        self._wake = asyncio.Event()

    def save(self, held: Held) -> None:
        """Have it written, as it is then."""
        self._latest = held
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; what was given last is written even then."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(_QUIET_SECONDS)
                self._wake.clear()
                await asyncio.to_thread(self._write)
        finally:
            self._write()

    def _write(self) -> None:
        held, self._latest = self._latest, None
        if held is not None:
            write_atomically(self._path, encode(held.resources()))
