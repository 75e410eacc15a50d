# SPDX-License-Identifier: Apache-2.0
"""A node for each test; its bpf file system for all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from agent_control import Gateway
from agent_node import Node, eventually
from agent_workload import ADDRESS, Workload

import epic.bpf


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpf file system of the tests' own."""
    if os.geteuid():
        pytest.skip("network namespaces and bpf need root")
    if not Path(epic.bpf.__file__).with_name("gue.bpf.o").exists():
        pytest.skip("the tunnel programs are not compiled: make bpf")
    directory = tmp_path_factory.mktemp("bpffs")
    subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.fixture(scope="session", autouse=True)
def grpc_threads() -> Iterator[None]:
    """gRPC's threads live while a channel does, in the network namespace in which the first was opened."""
    with grpc.insecure_channel("unix:nowhere"):
        yield


@pytest.fixture
async def node(tmp_path: Path, bpffs: Path) -> AsyncIterator[Node]:
    """A node with nothing running but the control plane."""
    made = Node(tmp_path, bpffs)
    await made.start_control()
    yield made
    await made.close()


@pytest.fixture
async def workload(node: Node, tmp_path: Path, bpffs: Path) -> AsyncIterator[Workload]:
    """A workload node and an EPIC node whose Envoy sends requests to it."""
    directory = tmp_path / "workload"
    directory.mkdir()
    made = Workload(node, directory, bpffs / f"{tmp_path.name}-workload")
    made.start_api()
    made.start_backend()
    node.control.publish(Gateway(forward=True).snapshot(ADDRESS))
    node.start_agent()
    await eventually(node.xds_socket.exists, 60)
    node.add_instance()
    node.start_envoy()
    await eventually(node.is_announced, 60, "the announcement")
    yield made
    made.close()
