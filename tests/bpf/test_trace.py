"""epic-trace on a real tunnel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from path_network import EPIC, INSIDE, NODE, Network, hello, udp_socket

from epic.errors import Unavailable
from epic.trace import kernel

pytestmark = pytest.mark.root


@pytest.fixture
def network(bpffs: Path, object_file: Path) -> Iterator[Network]:
    try:
        kernel.load_bcc()
    except Unavailable as error:
        pytest.skip(str(error))
    built = Network(bpffs, object_file)
    built.program()
    yield built
    built.close()


def test_a_ping_and_a_wrong_tag_are_followed(network: Network, bpffs: Path) -> None:
    pins = [f"--pins={bpffs / end}" for end in ("gateway", "workload")]
    command = [sys.executable, "-m", "epic.trace.main", "-o", "json", "--duration", "20", *pins]
    with (
        udp_socket(network.node, NODE, 6080) as agent,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            },
        ) as tracer,
    ):
        assert tracer.stderr is not None
        assert "tracing" in tracer.stderr.readline()
        hello(agent)
        network.instance.run(f"ping -c 1 -W 2 -I {INSIDE} {NODE}")
        hello(agent, key=bytes(16))
        network.instance.run("sleep 0.5")
        tracer.terminate()
        out, summary = tracer.communicate(timeout=10)
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    asked = [
        line["step"] for line in lines if line.get("source") == str(INSIDE) and line["protocol"] == "icmp"
    ]
    wanted = ["instance sends", "encapsulated", "underlay receives", "decapsulated", "delivered"]
    assert [step for step in asked if step in wanted][:2] == wanted[:2]
    assert set(wanted) <= set(asked)
    assert asked[-1] == "delivered"
    drop = next(line for line in lines if line["reason"] == "tag_wrong")
    assert (drop["step"], drop["destination"]) == ("dropped", str(EPIC))
    assert "dropped: tag_wrong" in summary
    assert len(list(bpffs.glob("*/*/maps/drops"))) == 2, "the counters' pins stay"


def test_only_what_is_wanted_is_shown(network: Network, bpffs: Path) -> None:
    pins = [f"--pins={bpffs / end}" for end in ("gateway", "workload")]
    wanted = ["--tunnel=7", f"--host={NODE}", "--protocol=icmp", "--interface=up0", "--drops"]
    command = [sys.executable, "-m", "epic.trace.main", "--duration", "20", *wanted, *pins]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PATH": "/usr/sbin:/usr/bin"}
    pipe = subprocess.PIPE
    with (
        udp_socket(network.node, NODE, 6080) as agent,
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as tracer,
    ):
        assert tracer.stderr is not None
        assert "tracing" in tracer.stderr.readline()
        hello(agent, key=bytes(16))
        network.instance.run("sleep 0.5")
        tracer.terminate()
        out, summary = tracer.communicate(timeout=10)
    assert not out
    assert "nothing seen" in summary
