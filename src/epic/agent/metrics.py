"""Metrics for Prometheus: the text format, written purely, and the small server of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from epic import __version__
from epic.agent.events import DEAD_SECONDS, Events
from epic.agent.report import TunnelReport
from epic.agent.settings import MetricsSettings
from epic.proto import epic_pb2

if TYPE_CHECKING:
    from epic.agent.measure import Look

log = logging.getLogger(__name__)

Labels = Mapping[str, str]

_REQUEST_BYTES = 8192
_REQUEST_SECONDS = 5.0
_CONTENT = "text/plain; version=0.0.4; charset=utf-8"
_TRAFFIC = (
    ("received_packets", "Inner packets from the far end.", "rx_packets"),
    ("received_bytes", "Inner bytes from the far end.", "rx_bytes"),
    ("sent_packets", "Inner packets to the far end.", "tx_packets"),
    ("sent_bytes", "Inner bytes to the far end.", "tx_bytes"),
)


@dataclass
class Family:
    """A metric and its samples."""

    name: str
    kind: str
    help: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a sample."""
        self.samples.append((labels, value))


def exposition(families: Iterable[Family]) -> str:
    """The text format, version 0.0.4."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {_escape(family.help)}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def gateway_text(
    tunnels: TunnelReport,
    gateways: Mapping[int, str],
    instances: Iterable[epic_pb2.InstanceStatus],
    events: Events,
) -> str:
    """The metrics of an EPIC node."""
    up, age, key = _tunnel_state()
    traffic = _traffic()
    for status in tunnels.statuses:
        labels = {"tunnel": str(status.id), "gateway": gateways.get(status.id, "")}
        up.add(0 <= status.hello_age <= DEAD_SECONDS, **labels)
        if status.hello_age >= 0:
            age.add(status.hello_age, **labels)
        key.add(status.signing_epoch, **labels)
        for name, _, attribute in _TRAFFIC:
            traffic[name].add(getattr(status, attribute), **labels)
    ready = Family("epic_instance_ready", "gauge", "Whether the instance's Envoy answers `ready`.")
    announced = Family("epic_instance_announced", "gauge", "Whether the public address is announced.")
    for instance in instances:
        ready.add(instance.ready, gateway=instance.gateway)
        announced.add(instance.announced, gateway=instance.gateway)
    parts = (up, age, key, *traffic.values(), _events(events), _drops(tunnels.drops), ready, announced)
    return exposition((_build(), *parts))


def workload_text(look: Look, events: Events) -> str:
    """The metrics of a workload node."""
    up, age, key = _tunnel_state()
    traffic = _traffic()
    trip = Family(
        "epic_tunnel_round_trip_seconds", "gauge", "Time from the last answered hello to its answer."
    )
    loss = Family("epic_tunnel_hello_loss_ratio", "gauge", "Part of the last hellos without an answer.")
    for id_, tunnel in sorted(look.tunnels.items()):
        labels = {"tunnel": str(id_), "gateway": tunnel.gateway}
        key.add(tunnel.signing, **labels)
        if (count := look.counters.get(id_)) is not None:
            for name, _, attribute in _TRAFFIC:
                traffic[name].add(getattr(count, attribute), **labels)
        health = look.health.get(id_)
        up.add(health is not None and health.alive, **labels)
        if health is None:
            continue
        if health.last_answer is not None:
            age.add(look.now - health.last_answer, **labels)
        if health.round_trip is not None:
            trip.add(health.round_trip, **labels)
        if (lost := health.loss(look.now)) is not None:
            loss.add(lost, **labels)
    parts = (up, age, key, trip, loss, *traffic.values(), _events(events), _drops(look.drops))
    return exposition((_build(), *parts))


def _build() -> Family:
    return Family("epic_agent_info", "gauge", "The agent's version.", [({"version": __version__}, 1)])


def _tunnel_state() -> tuple[Family, Family, Family]:
    return (
        Family("epic_tunnel_up", "gauge", "Whether the far end was heard of lately."),
        Family("epic_tunnel_hello_age_seconds", "gauge", "Time since the last verified control packet."),
        Family("epic_tunnel_key_epoch", "gauge", "Epoch of the key that signs."),
    )


def _traffic() -> dict[str, Family]:
    return {name: Family(f"epic_tunnel_{name}_total", "counter", text) for name, text, _ in _TRAFFIC}


def _drops(drops: Mapping[str, int]) -> Family:
    family = Family("epic_drops_total", "counter", "Packets that the tunnel programs dropped.")
    for reason, count in sorted(drops.items()):
        family.add(count, reason=reason)
    return family


def _events(events: Events) -> Family:
    family = Family("epic_tunnel_events_total", "counter", "How often a tunnel came up, moved, went down.")
    for (tunnel, what), count in sorted(events.items()):
        family.add(count, tunnel=str(tunnel), event=what)
    return family


def _labels(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    # Counters beyond 2**53 must not lose their last digits.
    return str(int(value)) if isinstance(value, int) else repr(float(value))


async def serve(settings: MetricsSettings, collect: Callable[[], Awaitable[str]]) -> None:
    """Answer GET /metrics until cancelled; an agent that cannot listen works without metrics."""
    if not settings.port:
        return
    try:
        server = await asyncio.start_server(
            lambda reader, writer: _answer(reader, writer, collect),
            str(settings.address),
            settings.port,
            limit=_REQUEST_BYTES,
        )
    except OSError as error:
        log.error("no metrics: %s port %d cannot be had: %s", settings.address, settings.port, error.strerror)
        return
    async with server:
        await server.serve_forever()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, collect: Callable[[], Awaitable[str]]
) -> None:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _reply(head, collect))
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        log.debug("a request for metrics broke off: %s", error)
    finally:
        writer.close()


async def _reply(head: bytes, collect: Callable[[], Awaitable[str]]) -> bytes:
    method, target, *_ = [*head.split(b"\r\n", 1)[0].split(b" "), b"", b""]
    if target.split(b"?")[0] != b"/metrics":
        status, text = "404 Not Found", "metrics are at /metrics\n"
    elif method != b"GET":
        status, text = "405 Method Not Allowed", "only GET is possible\n"
    else:
        try:
            status, text = "200 OK", await collect()
        except Exception:
            log.exception("metrics cannot be collected")
            status, text = "500 Internal Server Error", "the log of epic-agent says more\n"
    content = text.encode()
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {_CONTENT}", f"Content-Length: {len(content)}")
    return "\r\n".join((*lines, "Connection: close", "", "")).encode() + content
