"""The cluster's authority: what is made, what is kept, what is renewed, what is refused."""

from __future__ import annotations

import getpass
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from epic.pki import operations
from epic.pki.certificates import RequestError, alternative_names, common_name
from epic.pki.directory import PkiError, read_certificate
from epic.pki.operations import Pki

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["epic1", "10.99.0.3", "localhost"]


@pytest.fixture
def control(tmp_path: Path) -> Pki:
    pki = Pki(tmp_path / "control", NOW)
    operations.control(pki, NAMES, group=None, days=100)
    return pki


def node_of(control: Pki, tmp_path: Path, now: datetime = NOW) -> Pki:
    node = Pki(tmp_path / "node", now)
    node.write("ca.crt", (control.path / "ca.crt").read_bytes(), 0o644)
    return node


def enrol(control: Pki, node: Pki, name: str = "epic2") -> None:
    request = operations.request(node, name)["request"]
    operations.install(node, operations.sign(control, name, request.encode(), 100)["certificate"].encode())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_run_makes_authority_and_server(control: Pki) -> None:
    assert mode(control.path / "ca.key") == 0o600
    assert mode(control.path / "server.key") == 0o640
    server = read_certificate(control.path / "server.crt")
    assert server is not None
    assert alternative_names(server) == set(NAMES)
    server.verify_directly_issued_by(control.authority_certificate())


def test_the_second_run_changes_nothing(control: Pki) -> None:
    assert operations.control(control, NAMES, group=None, days=100) == {"changed": False, "written": []}


@pytest.mark.parametrize(
    ("names", "days_later", "written"),
    [
        pytest.param([*NAMES, "172.30.11.2"], 0, ["server.crt"], id="another name"),
        pytest.param(NAMES, 71, ["server.crt"], id="less than thirty days left"),
        pytest.param(NAMES, 69, [], id="long enough"),
    ],
)
def test_the_server_certificate_follows_names_and_time(
    control: Pki, names: list[str], days_later: int, written: list[str]
) -> None:
    later = Pki(control.path, NOW + timedelta(days=days_later))
    assert operations.control(later, names, group=None, days=100)["written"] == written


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "new", NOW, check=True)
    assert operations.control(pki, NAMES, group=None, days=100)["changed"] is True
    assert operations.ssh_key(pki, tmp_path / "id", getpass.getuser())["changed"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_node_gets_a_client_certificate_of_its_name(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    enrol(control, node)
    certificate = read_certificate(node.path / "agent.crt")
    assert certificate is not None
    assert common_name(certificate.subject) == "epic2"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use.dotted_string for use in usage] == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string]
    assert mode(node.path / "agent.key") == 0o600
    assert operations.request(node, "epic2") == {"changed": False, "request": None}


@pytest.mark.parametrize(
    ("name", "days_later"), [pytest.param("epic9", 0, id="renamed"), pytest.param("epic2", 71, id="ending")]
)
def test_a_node_asks_again(control: Pki, tmp_path: Path, name: str, days_later: int) -> None:
    node = node_of(control, tmp_path)
    enrol(control, node)
    later = Pki(node.path, NOW + timedelta(days=days_later))
    assert operations.request(later, name)["request"].startswith("-----BEGIN CERTIFICATE REQUEST")


def test_a_request_for_another_node_is_refused(control: Pki, tmp_path: Path) -> None:
    request = operations.request(node_of(control, tmp_path), "epic2")["request"]
    with pytest.raises(RequestError, match="is for 'epic2'; it must be for 'epic1'"):
        operations.sign(control, "epic1", request.encode(), 100)


def test_a_certificate_of_another_cluster_is_refused(control: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other", NOW)
    operations.control(other, NAMES, group=None, days=100)
    node = node_of(control, tmp_path)
    request = operations.request(node, "epic2")["request"]
    foreign = operations.sign(other, "epic2", request.encode(), 100)["certificate"]
    with pytest.raises(PkiError, match="not of this cluster's authority"):
        operations.install(node, foreign.encode())


def test_a_node_cannot_sign(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    request = operations.request(node, "epic2")["request"]
    with pytest.raises(PkiError, match="signed on the control host"):
        operations.sign(node, "epic2", request.encode(), 100)


def test_runs_get_an_ssh_key_once(control: Pki, tmp_path: Path) -> None:
    key = tmp_path / "ssh" / "id_ed25519"
    assert operations.ssh_key(control, key, getpass.getuser()) == {"changed": True}
    assert operations.ssh_key(control, key, getpass.getuser()) == {"changed": False}
    assert mode(key) == 0o600
    known = operations.public(control, key)
    assert known["run_key"].startswith("ssh-ed25519 ")
    assert known["ca"] == (control.path / "ca.crt").read_text()


def test_python_accepts_the_chain(tmp_path: Path) -> None:
    pki = Pki(tmp_path, datetime.now(UTC))
    operations.control(pki, NAMES, group=None, days=100)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    pipes = [ssl.MemoryBIO() for _ in range(2)]
    ends = [
        server.wrap_bio(pipes[0], pipes[1], server_side=True),
        client.wrap_bio(pipes[1], pipes[0], server_hostname="epic1"),
    ]
    done: set[int] = set()
    for turn in range(20):
        try:
            ends[turn % 2].do_handshake()
            done.add(turn % 2)
        except ssl.SSLWantReadError:
            continue
    assert done == {0, 1}
