# SPDX-License-Identifier: Apache-2.0
"""What the units of the roles promise to systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from epic.agent.runtime.systemd import HEARTBEAT_SECONDS
from epic.control.settings import RestSettings

ROLES = Path(__file__).parents[3] / "roles"
# at most this exposure, as `systemd-analyze security` rates it (times ten)
UNITS = {
    "firewall/files/epic-firewall.service": 20,
    "firewall/files/epic-firewall-check.service": 20,
    "gateway_node/files/epic-node.service": 20,
    # it makes network namespaces that the host can see, so it shares the host's view of files
    "gateway_node/files/epic-netns@.service": 45,
    "gateway_node/files/epic-envoy@.service": 20,
    "control_plane/templates/epic-control.service.j2": 20,
}


def settings(unit: str, name: str) -> list[str]:
    lines = (ROLES / unit).read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(("unit", "most"), UNITS.items())
def test_units_may_do_little_more_than_they_need(unit: str, most: int, tmp_path: Path) -> None:
    # it wants a name of an instance
    copy = tmp_path / Path(unit).name.replace("@.", "@a.").removesuffix(".j2")
    copy.write_text((ROLES / unit).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_envoy_sees_the_files_of_no_gateway_but_its_own() -> None:
    unit = "gateway_node/files/epic-envoy@.service"
    assert settings(unit, "TemporaryFileSystem") == ["/etc/epic:ro"]
    bound = " ".join(settings(unit, "BindReadOnlyPaths")).split()
    seen = {path for path in bound if path.startswith("/etc/")}
    assert seen == {"/etc/epic/envoy.yaml", "/etc/epic/gateways/%i"}
    (start,) = settings(unit, "ExecStart")
    assert set(re.findall(r"/etc/epic/[^ )]*", start)) == {
        "/etc/epic/gateways/%i/bootstrap.yaml",
        "/etc/epic/envoy.yaml",
    }


def test_at_a_shutdown_gateways_are_withdrawn_before_bird_and_firewall_end() -> None:
    """systemd stops units in the reverse of the order that it starts them in."""
    (after,) = settings("gateway_node/files/epic-envoy@.service", "After")
    assert {"bird.service", "nftables.service", "epic-agent.service"} <= set(after.split())


def test_whatever_the_distributions_firewall_does_ours_is_loaded_again() -> None:
    hooks = ("ExecStartPost", "ExecReload", "ExecStopPost")
    load = ["-/usr/sbin/nft --file /etc/epic/firewall.nft"]
    assert [settings("firewall/files/nftables.conf", hook) for hook in hooks] == [load] * 3
    assert settings("firewall/files/epic-firewall.service", "ReloadPropagatedFrom") == ["nftables.service"]


def test_a_restart_of_the_firewall_is_not_one_of_the_gateways() -> None:
    for name in ("Requires", "BindsTo", "PartOf"):
        assert settings("gateway_node/files/epic-netns@.service", name) == []
    (start,) = settings("gateway_node/files/epic-netns@.service", "ExecStart")
    assert start.startswith("/bin/sh -c '/usr/libexec/epic/epic-node check && exec ")


def test_systemd_starts_an_agent_that_hangs_anew() -> None:
    unit = "base/files/epic-agent.service"
    assert settings(unit, "Type") == ["notify"]
    assert settings(unit, "Restart") == ["always"]
    assert settings(unit, "StartLimitIntervalSec") == ["0"]
    (watchdog,) = settings(unit, "WatchdogSec")
    # one late heartbeat, or two, is no reason
    assert 3 * HEARTBEAT_SECONDS < int(watchdog) <= 15


def test_the_control_plane_takes_the_host_with_it_neither_by_memory_nor_by_a_run_that_is_ended() -> None:
    unit = "control_plane/templates/epic-control.service.j2"
    assert settings(unit, "MemoryHigh") == ["{{ control_plane_memory_high }}"]
    assert settings(unit, "MemoryMax") == ["{{ control_plane_memory_max }}"]
    assert settings(unit, "OOMPolicy") == ["continue"]
    assert settings(unit, "Restart") == ["always"]
    descriptors, most = settings(unit, "LimitNOFILE"), RestSettings.model_fields["connections"].default
    assert int(descriptors[0]) >= 4 * most


def test_a_node_that_is_short_of_memory_loses_gateways_before_what_all_of_them_need() -> None:
    assert settings("base/files/epic-agent.service", "OOMScoreAdjust") == ["-900"]
    assert settings("router/files/bird.conf", "OOMScoreAdjust") == ["-900"]
    assert settings("gateway_node/files/epic-envoy@.service", "OOMScoreAdjust") == ["500"]
