# SPDX-License-Identifier: Apache-2.0
"""epic-trace on real tunnels. One run of it takes two seconds, so one serves many statements."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from namespaces import Namespace, eventually, join
from path_network import (
    INSIDE,
    INSIDE6,
    INSTANCE_INTERFACE,
    KEY,
    NODE,
    NODE6,
    TUNNEL,
    Network,
    Plan,
    hello,
    udp_socket,
)
from tracing import Tracing, trace
from traffic import exchange, pings, tcp_pair

from epic.bpf.dataplane import Endpoint
from epic.bpf.packets import wire
from epic.errors import Unavailable
from epic.trace import btf, events, kernel

pytestmark = pytest.mark.root

POD, POD_INTERFACE = IPv4Address("10.8.0.5"), "vethpod"
PORT, QUIET_PORT, STRANGE_TUNNEL = 9999, 9998, 8
OPENED = ["decapsulated", "delivered"]


def need_bcc() -> None:
    try:
        kernel.load_bcc()
    except Unavailable as error:
        pytest.skip(str(error))


def built(bpffs: Path, object_file: Path, plan: Plan) -> Network:
    need_bcc()
    network = Network(bpffs, object_file, plan)
    network.program()
    return network


@pytest.fixture(scope="module")
def network(bpffs: Path, object_file: Path) -> Iterator[Network]:
    made = built(bpffs, object_file, Plan(4, True, 0))
    with udp_socket(made.node, made.plan.node, 6080) as agent:
        hello(agent, to=made.plan.epic)
        assert eventually(lambda: made.gateway.peer(TUNNEL) is not None)
    yield made
    made.close()


def converse(network: Network) -> None:
    """TCP, UDP both ways and to where nobody listens, pings; over IPv4 and IPv6."""
    for inner, source, node in ((4, INSIDE, NODE), (6, INSIDE6, NODE6)):
        assert pings(network, inner=inner)
        client, server = tcp_pair(network, inner)
        with client, server:
            exchange(client, server, b"hello" * 500)
        with (
            udp_socket(network.instance, source, 0) as asking,
            udp_socket(network.node, node, PORT) as answering,
        ):
            asking.sendto(b"?", (str(node), PORT))
            answering.sendto(b"!", answering.recvfrom(10)[1])
            assert asking.recv(10) == b"!"
            asking.sendto(b"?", (str(node), QUIET_PORT))


def speak_strangely(network: Network) -> None:
    """A hello with a wrong tag, and one of a tunnel that there is not."""
    with udp_socket(network.node, network.plan.node, 6080) as agent:
        hello(agent, key=bytes(16), to=network.plan.epic)
        now = time.time_ns()
        strange = wire.Control(wire.Kind.HELLO, STRANGE_TUNNEL, now, now, 0)
        agent.sendto(wire.encode(strange, KEY), (str(network.plan.epic), 6080))


def traced(network: Network, bpffs: Path, *arguments: str) -> Tracing:
    """What is said of all that."""
    with trace(network, bpffs, "-o", "json", *arguments) as tool:
        converse(network)
        speak_strangely(network)
        time.sleep(0.1)
    assert tool.process.returncode == 0, tool.errors
    return tool


def steps_of(lines: list[dict[str, Any]], protocol: str, source: object) -> list[str]:
    return [line["step"] for line in lines if (line["protocol"], line["source"]) == (protocol, str(source))]


@pytest.mark.parametrize(
    "plan",
    [Plan(4, True, 0), Plan(6, True, 0), Plan(6, True, 0, receive="xdp")],
    ids=["over IPv4", "over IPv6", "over IPv6 with XDP"],
)
def test_flows_of_both_families_are_followed(bpffs: Path, object_file: Path, plan: Plan) -> None:
    network = built(bpffs, object_file, plan)
    try:
        with udp_socket(network.node, plan.node, 6080) as agent:
            hello(agent, to=plan.epic)
            assert eventually(lambda: network.gateway.peer(TUNNEL) is not None)
        lines = traced(network, bpffs).lines
    finally:
        network.close()
    received = ["underlay receives"] if plan.receive == "tc" else []
    for inner, source, node in ((4, INSIDE, NODE), (6, INSIDE6, NODE6)):
        for protocol in ("tcp", "udp", "icmp" if inner == 4 else "icmp6"):
            asked, answered = (steps_of(lines, protocol, end) for end in (source, node))
            assert set(asked) - {"dropped"} == {"instance sends", "encapsulated", *received, *OPENED}
            assert set(answered) == {"encapsulated", *received, *OPENED}
        to_nobody = [line for line in lines if line["destination_port"] == QUIET_PORT]
        assert {line["reason"] for line in to_nobody} == {None, "NO_SOCKET"}
    assert {line["tunnel"] for line in lines if line["step"] in OPENED} == {TUNNEL}
    assert {line["reason"] for line in lines} == {None, "NO_SOCKET", "tag_wrong", "tunnel_unknown"}
    assert all(line["node"] for line in lines)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (f"--tunnel={STRANGE_TUNNEL}", lambda line: line["tunnel"] == STRANGE_TUNNEL),
        (f"--host={NODE6}", lambda line: str(NODE6) in (line["source"], line["destination"])),
        (f"--port={PORT}", lambda line: PORT in (line["source_port"], line["destination_port"])),
        ("--protocol=icmp", lambda line: line["protocol"] in ("icmp", "icmp6")),
        ("--drops", lambda line: line["step"] == "dropped"),
    ],
)
def test_only_what_is_wanted_is_shown(network: Network, bpffs: Path, wanted: str, fits: Any) -> None:
    lines = traced(network, bpffs, wanted).lines
    assert lines
    assert [line for line in lines if not fits(line)] == []


def test_an_interface_shows_what_came_in_or_goes_out_there(network: Network, bpffs: Path) -> None:
    lines = traced(network, bpffs, f"--interface={INSTANCE_INTERFACE}").lines
    assert {line["step"] for line in lines} == {"instance sends", "encapsulated"}
    assert {line["interface"] for line in lines} == {INSTANCE_INTERFACE, "up0"}


def test_a_count_ends_the_run_and_other_namespaces_are_not_seen(network: Network, bpffs: Path) -> None:
    with trace(network, bpffs, "--count=5", places=[network.node]) as tool:
        converse(network)
        assert tool.process.wait(timeout=5) == 0
    lines = tool.out.splitlines()
    assert len(lines) == 5
    assert "up0 in  underlay receives  icmp 100.64.0.1 > 192.168.50.11  tunnel 7 outer" in lines[0]
    assert "instance sends" not in tool.out


def test_a_duration_ends_the_run_and_what_is_over_the_rate_is_counted(network: Network, bpffs: Path) -> None:
    with trace(network, bpffs, "--duration=1", "--rate=5") as tool:
        client, server = tcp_pair(network)
        with client, server:
            exchange(client, server)
        assert tool.process.wait(timeout=5) == 0
    assert len(tool.out.splitlines()) < 100
    assert "events over the rate" in tool.errors


def test_what_we_drop_has_its_name_where_the_kernel_has_none(
    network: Network, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "drop_reasons", lambda _: {})
    tracer = kernel.Tracer(["-DRATE=1000", "-DWANT_DROPS", "-DWANT_NAMESPACE(n)=1"], [bpffs / "gateway"])
    try:
        speak_strangely(network)
        found = [step for data in tracer.poll(1) + tracer.poll(0.2) for step in events.steps(data, {})]
    finally:
        tracer.close()
    assert {"tag_wrong", "tunnel_unknown"} <= {step.reason for step in found}
    assert kernel.reason_flags(kernel.drop_reasons(btf.kernel())) == []


@pytest.fixture
def pod(network: Network) -> Namespace:
    """Behind the workload node, and not yet an endpoint."""
    join(network.node, POD_INTERFACE, network.second, "eth0")
    network.node.sysctl("ipv4/ip_forward", 1)
    network.node.run(f"ip addr add 10.8.0.1/24 dev {POD_INTERFACE}")
    network.second.run(f"ip addr add {POD}/24 dev eth0", "ip route add default via 10.8.0.1")
    return network.second


def test_a_pod_is_followed_and_refused_on_its_way_out(network: Network, pod: Namespace, bpffs: Path) -> None:
    with trace(network, bpffs, "-o", "json", f"--host={POD}") as tool:
        with pytest.raises(AssertionError):
            pod.run(f"ping -c 1 -W 0.2 {INSIDE}")
        for plane, place in ((network.gateway, network.epic), (network.workload, network.node)):
            with place:
                plane.set_endpoint(INSIDE, POD, Endpoint(TUNNEL))
        pod.run(f"ping -c 1 -W 2 {INSIDE}")
    told = [(line["step"], line["interface"], line["direction"], line["reason"]) for line in tool.lines]
    sends, refused = told[:2]
    assert sends == ("endpoint sends", POD_INTERFACE, "in", None)
    assert refused == ("dropped", "up0", "out", "source_not_endpoint")
    assert told[2:4] == [sends, ("encapsulated", "up0", "out", None)]
    assert told[-1] == ("delivered", POD_INTERFACE, "out", None)
