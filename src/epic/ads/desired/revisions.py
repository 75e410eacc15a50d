# SPDX-License-Identifier: Apache-2.0
"""Accepted configurations on disk: a restart of the control plane must not lose the last good ones."""

from __future__ import annotations

import json
import logging
import os
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.message import DecodeError, Message
from pydantic import TypeAdapter, ValidationError

from epic.ads.desired.assemble import Accepted
from epic.envoy.resources import Bundle
from epic.gatewayapi.routing import Routing
from epic.model.values.naming import GatewayId

log = logging.getLogger(__name__)

_ROUTING = TypeAdapter(Routing)
_TYPES: dict[str, type[Message]] = {"clusters": Cluster, "listeners": Listener, "routes": RouteConfiguration}


class Revisions:
    """One file a gateway, in a directory only the control plane may read; without one nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, gateway: GatewayId, service: int) -> Accepted | None:
        """The configuration that was saved last; None also when it cannot be read any more.

        Its routing has no virtual hosts. One of an earlier gateway of that name had another number and does
        not count.
        """
        path = self._path(gateway)
        if path is None or not path.exists():
            return None
        try:
            saved = json.loads(path.read_text())
            if saved["service"] != service:
                return None
            parts = {
                part: {name: kind.FromString(b64decode(text)) for name, text in saved[part].items()}
                for part, kind in _TYPES.items()
            }
            routing = _ROUTING.validate_python(saved["routing"])
        except (
            OSError,
            ValueError,
            KeyError,
            AttributeError,
            TypeError,
            DecodeError,
            ValidationError,
        ) as error:
            log.warning("the saved configuration %s cannot be used: %s", path, error)
            return None
        return Accepted(routing, Bundle(saved["revision"], shapes=None, **parts))

    def save(self, accepted: Accepted, service: int) -> None:
        """Replace the gateway's file; `service` is the gateway's number."""
        path = self._path(accepted.routing.gateway)
        if path is None:
            return
        bundle = accepted.bundle
        body = {
            "revision": bundle.revision,
            "service": service,
            "routing": _ROUTING.dump_python(_brief(accepted.routing), mode="json"),
            **{
                part: {n: b64encode(m.SerializeToString()).decode() for n, m in getattr(bundle, part).items()}
                for part in _TYPES
            },
        }
        fresh = path.with_name(f"{path.name}.new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(body, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            # On a disk that is full its beginning must not take what room there is.
            fresh.unlink(missing_ok=True)
            raise

    def forget(self, gateway: GatewayId) -> None:
        """Remove the gateway's file."""
        path = self._path(gateway)
        if path is not None:
            path.unlink(missing_ok=True)

    def saved(self) -> set[GatewayId]:
        """The gateways that have a file."""
        if self._directory is None:
            return set()
        return {GatewayId.parse(path.name.removesuffix(".json")) for path in self._directory.glob("*.json")}

    def _path(self, gateway: GatewayId) -> Path | None:
        return self._directory / f"{gateway}.json" if self._directory else None


def _brief(routing: Routing) -> Routing:
    """Without the virtual hosts, of which all is in the bundle."""
    return replace(routing, ports=tuple(replace(port, virtual_hosts=()) for port in routing.ports))
