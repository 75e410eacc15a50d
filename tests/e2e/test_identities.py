# SPDX-License-Identifier: Apache-2.0
"""Identities between hosts: the runs' key does one thing, certificates are renewed under traffic."""

from __future__ import annotations

import json
import shlex
import ssl
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from hosts import Host, Lab, Target, eventually
from traffic import none_broken, traffic

from epic.client import EpicClient

KEY = "/var/lib/epic/control/ssh/id_ed25519"
KNOWN_HOSTS = "/var/lib/epic/control/ssh/known_hosts"
PKI = "/opt/epic/bin/epic-pki"
OPTIONS = "-o BatchMode=yes -o ConnectTimeout=5 -o IdentitiesOnly=yes -o ControlPath=none"
HOURS = 3600
# Signs a request as if it had come so many seconds ago.
SIGN = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from epic.pki import operations
pki = operations.Pki(Path("/etc/epic/pki"), datetime.now(UTC) - timedelta(seconds=float(sys.argv[2])))
made = operations.sign(pki, sys.argv[1], sys.stdin.buffer.read(), timedelta(hours=24))
print(made["certificate"])
"""


@pytest.fixture
def control(lab: Lab) -> Host:
    return lab["epic1"]


@pytest.fixture
def address(api: EpicClient) -> str:
    """Where runs reach epic2."""
    return str(api.get("/api/epic/nodes/epic2")["node"]["spec"]["management-address"])


def ssh(host: Host, key: str, target: str, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Log in from `host` to `target` with the key."""
    line = f"ssh {OPTIONS} -i {key} -o UserKnownHostsFile={KNOWN_HOSTS} {command.replace('TARGET', target)}"
    return subprocess.run(
        host.ssh(line), input=stdin, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("command", ["root@TARGET id", "root@TARGET"])
def test_the_runs_key_opens_no_shell(control: Host, address: str, command: str) -> None:
    done = ssh(control, KEY, address, command, stdin="id\n")
    assert done.returncode != 0
    assert json.loads(done.stdout)["failed"]


def test_the_runs_key_opens_no_terminal(control: Host, address: str) -> None:
    done = ssh(control, KEY, address, "-tt root@TARGET bash", stdin="id\n")
    assert "PTY allocation request failed" in done.stderr
    assert "uid=" not in done.stdout


def test_the_runs_key_forwards_nothing(control: Host, address: str) -> None:
    done = ssh(control, KEY, address, "-W 127.0.0.1:22 root@TARGET")
    assert done.returncode != 0
    assert "SSH-" not in done.stdout


def test_what_is_refused_is_logged_on_the_node(lab: Lab, control: Host, address: str) -> None:
    word = f"refused-{time.time_ns()}"
    ssh(control, KEY, address, f"root@TARGET {word}")
    eventually(
        lambda: word in lab["epic2"].run("journalctl -t epic-instances -n 20 --no-pager"),
        within=10,
        what="the refused command in the journal",
    )


@pytest.fixture
def stolen(lab: Lab, control: Host) -> Iterator[str]:
    """The runs' key on a host that is not the control host."""
    path = "/run/stolen"
    lab["node1"].run(f"umask 077; cat > {path}", stdin=control.run(f"cat {KEY}"))
    yield path
    lab["node1"].run(f"rm -f {path}")


def test_the_runs_key_is_of_use_on_the_control_host_only(lab: Lab, api: EpicClient, stolen: str) -> None:
    underlay = str(api.get("/api/epic/nodes/epic2")["node"]["spec"]["address"])
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    for target in {underlay, str(api.get("/api/epic/nodes/epic2")["node"]["spec"]["management-address"])}:
        done = subprocess.run(
            lab["node1"].ssh(f"ssh {OPTIONS} {options} -i {stolen} root@{target} id"),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 255, done.stdout + done.stderr


def life(host: Host) -> dict[str, Any]:
    found = host.json(f"{PKI} show")
    assert isinstance(found, dict)
    return found


def test_an_agent_renews_its_certificate_without_losing_a_request(
    lab: Lab, control: Host, web: object, web_target: Target
) -> None:
    node = lab["epic2"]
    request = node.json(f"{PKI} csr --name epic2 --renew")
    assert isinstance(request, dict)
    program = SIGN.replace('"', '\\"')
    aged = control.run(
        f'/opt/epic/current/bin/python -c "{program}" epic2 {20 * HOURS}', stdin=request["request"]
    )
    with traffic(lab, web_target, rate=50, connections=20) as seen:
        node.run(f"{PKI} install", stdin=aged)
        old = life(node)["not_after"]
        eventually(
            lambda: life(node)["not_after"] > old, within=90, every=1, what="a renewed certificate of epic2"
        )
    none_broken(seen)


# Makes the server's certificate as it was made 75 days ago, for 90 days.
AGE_SERVER = """
from datetime import UTC, datetime, timedelta
from pathlib import Path
from epic.pki import certificates, directory, operations
place = Path("/etc/epic/pki")
names = sorted(certificates.alternative_names(directory.read_certificate(place / "server.crt")))
(place / "server.crt").unlink()
then = datetime.now(UTC) - timedelta(days=75)
operations.control(operations.Pki(place, then), names, None, timedelta(days=90))
"""
TIMER = "/run/systemd/system/epic-pki-renew.timer.d"
SOON = "[Timer]\nOnActiveSec=1s\nAccuracySec=1s\nRandomizedDelaySec=0\n"


def served(api: EpicClient) -> x509.Certificate:
    """The certificate that the REST API answers with."""
    host, _, port = api.server.rpartition("/")[2].partition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())


@pytest.fixture
def soon(control: Host) -> Iterator[str]:
    """A command after which the timer is due in a second, instead of once in the day."""
    yield (
        f"mkdir -p {TIMER} && printf '{SOON}' > {TIMER}/soon.conf"
        " && systemctl daemon-reload && systemctl restart epic-pki-renew.timer"
    )
    control.run(f"rm -r {TIMER}; systemctl daemon-reload; systemctl restart epic-pki-renew.timer")
    control.run("systemctl start epic-pki-renew.service")


def test_the_servers_certificate_is_renewed_by_its_timer_and_served(
    control: Host, api: EpicClient, soon: str
) -> None:
    control.run(f"/opt/epic/current/bin/python -c {shlex.quote(AGE_SERVER)}")
    aged = eventually(
        lambda: next((c for c in [served(api)] if _days(c) < 20), None),
        within=30,
        what="the old certificate of the server",
    )
    control.run(soon)
    renewed = eventually(
        lambda: next((c for c in [served(api)] if _days(c) > 80), None),
        within=60,
        what="a renewed certificate of the server",
    )
    assert renewed.serial_number != aged.serial_number
    assert api.get("/api/epic/nodes")["items"], "the client's authority is the renewed certificate's too"


def _days(certificate: x509.Certificate) -> float:
    """For how many days it is good."""
    return (certificate.not_valid_after_utc.timestamp() - time.time()) / 86400
