# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a bpf file system of the tests' own, and one host's dataplane for tests of single packets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chance_bed import Bed
from frames import GENERATION
from fuzzing import COUNT, SEED
from host import Host
from lent_programs import LOAD, programs_lent
from namespaces import Namespace
from planes import INSTANCE

from epic.bpf.dataplane import Dataplane
from epic.bpf.programs.loader import Loader

OBJECT = Path(__file__).parents[2] / "src/epic/bpf/gue.bpf.o"


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpf file system; each user takes a directory of it."""
    if os.geteuid():
        pytest.skip("loading bpf programs needs root")
    if not OBJECT.exists():
        pytest.skip(f"{OBJECT} is not compiled: make bpf")
    directory = tmp_path_factory.mktemp("bpffs")
    subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
    with programs_lent(directory / "lent", OBJECT):
        yield directory
    subprocess.run(["umount", directory], check=True)


@pytest.fixture(scope="session", autouse=True)
def known_generation() -> Iterator[None]:
    """Hellos can be written before there is a tunnel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("epic.bpf.tables.tunnel_table._new_generation", lambda: GENERATION)
        yield


@pytest.fixture(scope="session", autouse=True)
def inside_addresses_are_left_at_once() -> Iterator[None]:
    """Of tunnels that are gone: `forget_insides` does not wait for minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("epic.bpf.tables.left_insides.KEPT_SECONDS", 0.0)
        yield


@pytest.fixture
def own_programs(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that the test loads are its own, and gone when it has unloaded them."""
    monkeypatch.setattr(Loader, "_bpftool", LOAD)


@pytest.fixture(scope="session")
def object_file() -> Path:
    """The compiled programs."""
    return OBJECT


@pytest.fixture(scope="session")
def shared_host(bpffs: Path, object_file: Path) -> Iterator[Host]:
    """One host for all tests of single packets."""
    built = Host(bpffs / "host", object_file)
    yield built
    built.close()


@pytest.fixture
def host(shared_host: Host, request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host on which the tunnel is set up as new; the test runs in its namespace.

    The tunnel is over the outer family of the test's parameter `families`, if it has it.
    """
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    families = parameters.get("families")
    shared_host.reset(families.over if families else 4)
    with shared_host.namespace:
        yield shared_host


@pytest.fixture(scope="session")
def shared_bed(bpffs: Path, object_file: Path) -> Iterator[Bed]:
    """One node for all tests of second chance."""
    built = Bed(bpffs / "bed", object_file)
    yield built
    built.close()


@pytest.fixture
def bed(shared_bed: Bed, request: pytest.FixtureRequest) -> Bed:
    """A node that has just heard of its siblings, over the outer family of the parameter `families`."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    families = parameters.get("families")
    shared_bed.reset(families.over if families else 4)
    return shared_bed


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """With an underlay and an instance's interface; the test runs in it."""
    created = Namespace()
    created.run(
        "ip link add up0 type veth peer name far0",
        f"ip link add {INSTANCE} type veth peer name peer0",
        "ip addr add 172.30.2.2/24 dev up0",
    )
    with created:
        yield created
    created.close()


@pytest.fixture
def plane(namespace: Namespace, bpffs: Path, object_file: Path) -> Iterator[Dataplane]:
    """Loaded there, with nothing in it."""
    loaded = Dataplane(bpffs / "plane", object_file)
    loaded.load()
    yield loaded
    loaded.unload()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how the packets of the fuzzer can be had again."""
    reports = (report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ()))
    if any("test_fuzz" in report.nodeid for report in reports):
        terminalreporter.write_line(f"fuzzed with EPIC_FUZZ_SEED={SEED} EPIC_FUZZ_PACKETS={COUNT}")
