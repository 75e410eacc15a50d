# SPDX-License-Identifier: Apache-2.0
"""Metrics: the text that Prometheus reads, and the server of it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from agent_samples import WEB, A, workload_tunnel

from epic.agent.gateway import metrics as gateway_metrics
from epic.agent.gateway.control.report import TunnelReport
from epic.agent.tunnel.health import Health
from epic.agent.workload import metrics as workload_metrics
from epic.agent.workload.control.reports import StatusSample
from epic.bpf.dataplane import SecondChanceCounters, TunnelCounters
from epic.exposition import Family, exposition, serve
from epic.proto.epic_pb2 import InstanceStatus, TunnelStatus

LOOPBACK = IPv4Address("127.0.0.1")


def test_labels_and_help_are_escaped_and_large_counters_exact() -> None:
    family = Family("m", "counter", "a\nb\\")
    family.add(2**63 + 1, x='"\\\n')
    family.add(0.5)
    assert exposition([family]) == (
        '# HELP m a\\nb\\\\\n# TYPE m counter\nm{x="\\"\\\\\\n"} 9223372036854775809\nm 0.5\n'
    )


async def test_an_epic_node_shows_tunnels_drops_events_and_instances() -> None:
    statuses = [
        TunnelStatus(id=7, hello_age=2, rx_packets=5, tx_bytes=9, signing_epoch=3),
        TunnelStatus(id=8, hello_age=-1),
    ]
    text = await gateway_metrics.render(
        TunnelReport(
            statuses,
            {"tag_wrong": 4},
            {WEB: SecondChanceCounters(*range(6, 21))},
        ),
        {7: WEB},
        [InstanceStatus(gateway=WEB, ready=True)],
        Counter({(7, "moved"): 2}),
        {"saver": 2},
        1700000000,
        [gateway_metrics.siblings_family({A: False})],
    )
    for line in (
        "epic_agent_certificate_end_seconds 1700000000",
        'epic_tunnel_up{tunnel="7",gateway="shop.web"} 1',
        'epic_tunnel_up{tunnel="8",gateway=""} 0',
        'epic_tunnel_hello_age_seconds{tunnel="7",gateway="shop.web"} 2.0',
        'epic_tunnel_received_packets_total{tunnel="7",gateway="shop.web"} 5',
        'epic_tunnel_sent_bytes_total{tunnel="7",gateway="shop.web"} 9',
        'epic_tunnel_key_epoch{tunnel="7",gateway="shop.web"} 3',
        'epic_tunnel_events_total{tunnel="7",event="moved"} 2',
        'epic_drops_total{reason="tag_wrong"} 4',
        'epic_instance_ready{gateway="shop.web"} 1',
        'epic_instance_announced{gateway="shop.web"} 0',
        'epic_agent_task_failures_total{task="saver"} 2',
        'epic_second_chance_total{gateway="shop.web",what="hits"} 6',
        'epic_second_chance_total{gateway="shop.web",what="passed_on"} 7',
        'epic_sibling_up{address="192.168.50.11"} 0',
    ):
        assert line in text.splitlines()
    assert 'epic_tunnel_hello_age_seconds{tunnel="8"' not in text


async def test_a_workload_node_shows_round_trips_and_loss() -> None:
    health = Health()
    health.sent(1, 100)
    health.answered(1, 100.002, 0.001953125)
    sample = StatusSample({7: workload_tunnel(A)}, {7: TunnelCounters(1, 2, 3, 4)}, {}, {7: health}, 105)
    text = await workload_metrics.render(sample, Counter(), {}, problems=2)
    lines = text.splitlines()
    assert 'epic_tunnel_round_trip_seconds{tunnel="7",gateway="shop.web"} 0.001953125' in lines
    assert 'epic_tunnel_hello_loss_ratio{tunnel="7",gateway="shop.web"} 0.0' in lines
    assert 'epic_tunnel_up{tunnel="7",gateway="shop.web"} 1' in lines
    assert "epic_agent_problems 2" in lines


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return int(any_socket.getsockname()[1])


async def ask(port: int, request: str) -> str:
    async with asyncio.timeout(60):
        while True:
            with suppress(ConnectionRefusedError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            await asyncio.sleep(0.01)
        writer.write(f"{request}\r\nHost: x\r\n\r\n".encode())
        reply = (await reader.read()).decode()
        writer.close()
        return reply


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /metrics HTTP/1.1", "200 OK"),
        ("GET /metrics?x=1 HTTP/1.0", "200 OK"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
        ("GET / HTTP/1.1", "404 Not Found"),
        ("nonsense", "404 Not Found"),
    ],
)
async def test_metrics_are_served_over_http(request_line: str, status: str) -> None:
    port = free_port()

    async def collect() -> str:
        return "m 1\n"

    task = asyncio.create_task(serve(LOOPBACK, port, collect))
    reply = await ask(port, request_line)
    task.cancel()
    head, _, content = reply.partition("\r\n\r\n")
    assert head.splitlines()[0] == f"HTTP/1.1 {status}"
    assert f"Content-Length: {len(content)}" in head
    if status == "200 OK":
        assert content == "m 1\n"


async def test_a_failure_to_collect_is_an_answer_too() -> None:
    port = free_port()

    async def collect() -> str:
        raise RuntimeError("the maps are gone")

    task = asyncio.create_task(serve(LOOPBACK, port, collect))
    assert (await ask(port, "GET /metrics HTTP/1.1")).startswith("HTTP/1.1 500 ")
    task.cancel()


async def test_an_agent_without_its_metrics_port_goes_on() -> None:
    async def collect() -> str:
        return ""

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        await asyncio.wait_for(serve(LOOPBACK, taken.getsockname()[1], collect), 60)
    await asyncio.wait_for(serve(LOOPBACK, 0, collect), 60)
