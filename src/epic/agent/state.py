"""What the control plane sent last, on disk: one message with all resources and their versions."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from epic.ads.snapshot import Snapshot, Versioned
from epic.agent.files import write_atomically

log = logging.getLogger(__name__)

FILE = "resources.bin"
_FORMAT = "epic-agent-1"
_QUIET_SECONDS = 0.05


def encode(snapshot: Snapshot) -> bytes:
    """The snapshot as bytes."""
    message = discovery_pb2.DeltaDiscoveryResponse(system_version_info=_FORMAT)
    for _, resources in sorted(snapshot.items()):
        for name, resource in sorted(resources.items()):
            message.resources.add(name=name, version=resource.version, resource=resource.body)
    content: bytes = message.SerializeToString()
    return content


def decode(content: bytes) -> Snapshot:
    """The inverse of `encode`; ValueError for other bytes."""
    try:
        message = discovery_pb2.DeltaDiscoveryResponse.FromString(content)
    except DecodeError as error:
        raise ValueError(f"is damaged: {error}") from error
    if message.system_version_info != _FORMAT:
        raise ValueError(f"has the format {message.system_version_info!r}; this agent reads {_FORMAT!r}")
    snapshot: dict[str, dict[str, Versioned]] = {}
    for item in message.resources:
        resources = snapshot.setdefault(item.resource.type_url, {})
        resources[item.name] = Versioned(item.version, item.resource)
    return dict(snapshot)


def load(directory: Path) -> Snapshot | None:
    """The stored snapshot; None when there is none that can be read."""
    path = directory / FILE
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.error("%s %s; waiting for the control plane to send everything again", path, error)
        return None


class Saver:
    """Writes the latest snapshot soon after it was given; many changes at once become one write."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._latest: Snapshot | None = None
        self._wake = asyncio.Event()

    def save(self, snapshot: Snapshot) -> None:
        """Have it written."""
        self._latest = snapshot
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
        snapshot, self._latest = self._latest, None
        if snapshot is not None:
            write_atomically(self._path, encode(snapshot))
