# SPDX-License-Identifier: Apache-2.0
"""Asking the Envoy binary whether it would take a gateway's resources."""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf.any_pb2 import Any

from epic.envoy.resources import Bundle, connection_managers
from epic.errors import Invalid, Unavailable
from epic.gatewayapi.names import AGENT_CLUSTER
from epic.processes import communicate

log = logging.getLogger(__name__)

_SECONDS = 20
_LONGEST_MESSAGE = 1000
_CONSTRAINT = re.compile(r"Proto constraint validation failed \((.*)\)")
_STEP_END = ": embedded message failed validation"
# Envoy's protobuf library marks where it dumps a message.
_DUMP_MARK = re.compile(r":? *goo\.gle/debug\w+\s*")


async def validate(binary: Path, bundle: Bundle) -> None:
    """Raises Invalid with Envoy's words when it would refuse the bundle, Unavailable when it cannot tell."""
    with tempfile.TemporaryDirectory(prefix="epic-validate-") as directory:
        path = Path(directory) / "bootstrap.pb"
        path.write_bytes(bootstrap(bundle).SerializeToString())
        output, code = await _run(binary, path)
        if code != 0:
            raise Invalid(f"Envoy refuses the configuration: {_reason(output, path)}")


def bootstrap(bundle: Bundle) -> Bootstrap:
    """A bootstrap like a node's, with the bundle as static resources, routes inside their listeners."""
    config = Bootstrap()
    config.node.id = config.node.cluster = "validate"
    ads = config.dynamic_resources.ads_config
    ads.api_type, ads.transport_api_version = ads.DELTA_GRPC, 2
    ads.grpc_services.add().envoy_grpc.cluster_name = AGENT_CLUSTER
    config.static_resources.clusters.extend(bundle.clusters.values())
    xds = config.static_resources.clusters.add(name=AGENT_CLUSTER)
    xds.http2_protocol_options.SetInParent()
    config.static_resources.listeners.extend(_with_routes(bundle))
    return config


def _with_routes(bundle: Bundle) -> Iterable[Listener]:
    for original in bundle.listeners.values():
        listener = Listener()
        listener.CopyFrom(original)
        for holder, manager in connection_managers(listener):
            if manager.HasField("rds"):
                name = manager.rds.route_config_name
                manager.route_config.CopyFrom(bundle.routes[name])
                assert isinstance(holder, Any)  # noqa: S101
                holder.Pack(manager)
        yield listener


async def _run(binary: Path, config: Path) -> tuple[str, int]:
    arguments = ("--mode", "validate", "--config-path", str(config), "--log-level", "error")
    try:
        process = await asyncio.create_subprocess_exec(
            str(binary), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        # The gateway's owner reads what is raised, and has nothing to do with this host's files.
        log.error("cannot run Envoy to validate: %s", error)
        raise Unavailable("the configuration cannot be validated at present; it is tried again") from error
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await communicate(process)
    except TimeoutError as error:
        raise Unavailable(f"Envoy did not finish validating within {_SECONDS} s") from error
    return output.decode(errors="replace"), process.returncode or 0


def _reason(output: str, config: Path) -> str:
    """What Envoy finds wrong, in one line, without the dump of the whole configuration that it may add."""
    constraint = _CONSTRAINT.search(output)
    if constraint is not None:
        steps = [step.removesuffix(_STEP_END) for step in constraint[1].split(" | caused by ")]
        text = " > ".join(step.replace("ValidationError.", ".") for step in steps)
    else:
        text = output.rpartition(f"'{config}': ")[2].strip().partition("\n")[0]
        text = _DUMP_MARK.sub("", text)
    return (text or "no reason given").replace(str(config), "configuration")[:_LONGEST_MESSAGE]
