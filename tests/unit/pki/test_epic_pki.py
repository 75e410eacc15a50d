# SPDX-License-Identifier: Apache-2.0
"""The cluster's authority: what is made, what is kept, what is renewed, what is refused."""

from __future__ import annotations

import getpass
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from epic.ads.identity.credentials import ServerFiles
from epic.ads.identity.issuer import Issuer
from epic.pki import operations
from epic.pki.certificates import RequestError, alternative_names
from epic.pki.directory import PkiError, read_certificate, write
from epic.pki.identity import Identity, read_identity
from epic.pki.operations import Pki

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["epic1", "10.99.0.3", "localhost"]
LIFE = timedelta(days=90)
DAY = timedelta(hours=24)


@pytest.fixture
def control(tmp_path: Path) -> Pki:
    pki = Pki(tmp_path / "control", NOW)
    operations.control(pki, NAMES, group=None, life=LIFE)
    return pki


def node_of(control: Pki, tmp_path: Path, now: datetime = NOW) -> Pki:
    node = Pki(tmp_path / "node", now)
    for name in ("ca.crt", "agents.crt"):
        node.write(name, (control.path / name).read_bytes(), 0o644)
    return node


def enrol(control: Pki, node: Pki, name: str = "epic2", *, renew: bool = False) -> Identity:
    request = operations.request(node, name, renew=renew)["request"]
    at = Pki(control.path, node.now)
    operations.install(node, operations.sign(at, name, request.encode(), DAY)["certificate"].encode())
    identity = read_identity(node.path / "agent.pem")
    assert identity is not None
    return identity


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_run_makes_authority_and_server(control: Pki) -> None:
    assert mode(control.path / "ca.key") == 0o600
    assert mode(control.path / "server.key") == 0o640
    assert mode(control.path / "agents.key") == 0o640, "the control plane renews agents' certificates"
    server = read_certificate(control.path / "server.crt")
    assert server is not None
    assert alternative_names(server) == set(NAMES)
    server.verify_directly_issued_by(control.certificate("ca"))


def test_the_second_run_changes_nothing(control: Pki) -> None:
    assert operations.control(control, NAMES, group=None, life=LIFE) == {"changed": False, "written": []}


@pytest.mark.parametrize(
    ("names", "days_later", "written"),
    [
        pytest.param([*NAMES, "172.30.11.2"], 0, ["server.crt"], id="another name"),
        pytest.param(NAMES, 61, ["server.crt"], id="less than a third left"),
        pytest.param(NAMES, 59, [], id="long enough"),
    ],
)
def test_the_server_certificate_follows_names_and_time(
    control: Pki, names: list[str], days_later: int, written: list[str]
) -> None:
    later = Pki(control.path, NOW + timedelta(days=days_later))
    assert operations.control(later, names, group=None, life=LIFE)["written"] == written


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "new", NOW, check=True)
    assert operations.control(pki, NAMES, group=None, life=LIFE)["changed"] is True
    assert operations.ssh_key(pki, tmp_path / "id", getpass.getuser())["changed"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_node_gets_a_client_certificate_of_its_name(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    identity = enrol(control, node)
    assert identity.name == "epic2"
    usage = identity.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use.dotted_string for use in usage] == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string]
    assert mode(node.path / "agent.pem") == 0o600
    assert not (node.path / "agent.key").exists(), "the key is in the one file"
    assert operations.request(node, "epic2") == {"changed": False, "request": None}


def test_the_agents_certificate_is_not_of_the_authority_that_servers_have(
    control: Pki, tmp_path: Path
) -> None:
    identity = enrol(control, node_of(control, tmp_path))
    identity.certificate.verify_directly_issued_by(control.certificate("agents"))
    with pytest.raises(ValueError, match=r"[Ii]ssuer"):
        identity.certificate.verify_directly_issued_by(control.certificate("ca"))


def test_the_agents_certificate_is_valid_for_a_day_and_not_before_it_was_made(
    control: Pki, tmp_path: Path
) -> None:
    node = node_of(control, tmp_path)
    certificate = enrol(control, node).certificate
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (NOW, NOW + DAY)
    life = {"not_before": int(NOW.timestamp()), "not_after": int((NOW + DAY).timestamp())}
    assert operations.show(node) == {"changed": False, **life}


@pytest.mark.parametrize(
    ("name", "hours_later"),
    [
        pytest.param("epic9", 0, id="renamed"),
        pytest.param("epic2", 21, id="could not renew it"),
        pytest.param("epic2", 1000, id="was off for long"),
    ],
)
def test_the_playbook_gives_a_node_another_certificate(
    control: Pki, tmp_path: Path, name: str, hours_later: int
) -> None:
    node = node_of(control, tmp_path)
    first = enrol(control, node)
    later = Pki(node.path, NOW + timedelta(hours=hours_later))
    second = enrol(control, later, name)
    assert (second.name, second.key) != (name, first.key), "with another key"


def test_the_playbook_leaves_a_certificate_that_the_agent_will_renew(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    enrol(control, node)
    later = Pki(node.path, NOW + timedelta(hours=19))
    assert operations.request(later, "epic2") == {"changed": False, "request": None}


def test_an_agent_renews_a_certificate_that_is_good(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    first = enrol(control, node)
    later = Pki(node.path, NOW + timedelta(hours=16))
    second = enrol(control, later, renew=True)
    assert second.certificate.not_valid_after_utc == NOW + timedelta(hours=40)
    assert second.key != first.key


def test_a_renewal_that_ends_halfway_leaves_the_old_identity(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    first = enrol(control, node)
    operations.request(node, "epic2", renew=True)
    kept = read_identity(node.path / "agent.pem")
    assert kept is not None
    assert kept.certificate == first.certificate


def test_a_damaged_identity_is_replaced(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    enrol(control, node)
    (node.path / "agent.pem").write_text("-----BEGIN")
    assert enrol(control, node).name == "epic2"


def test_a_node_that_came_from_another_cluster_asks_again(control: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other", NOW)
    operations.control(other, NAMES, group=None, life=LIFE)
    node = node_of(control, tmp_path)
    enrol(control, node)
    node.write("agents.crt", (other.path / "agents.crt").read_bytes(), 0o644)
    assert operations.request(node, "epic2")["request"]


def test_a_request_for_another_node_is_refused(control: Pki, tmp_path: Path) -> None:
    request = operations.request(node_of(control, tmp_path), "epic2")["request"]
    with pytest.raises(RequestError, match="is for 'epic2'; it must be for 'epic1'"):
        operations.sign(control, "epic1", request.encode(), DAY)


def test_a_damaged_request_is_refused_where_its_signature_covers_the_damage(
    control: Pki, tmp_path: Path
) -> None:
    good = operations.request(node_of(control, tmp_path), "epic1")["request"]
    der = ssl.PEM_cert_to_DER_cert(good.replace("CERTIFICATE REQUEST", "CERTIFICATE"))
    for place in range(len(der)):
        damaged = bytes([*der[:place], der[place] ^ 1, *der[place + 1 :]])
        pem = ssl.DER_cert_to_PEM_cert(damaged).replace("CERTIFICATE", "CERTIFICATE REQUEST")
        # The octet that says how many of the signature's last bits are unused may change nothing.
        if der[place - 2] != 0x03 or der[place] != 0 or place < len(der) // 2:
            with pytest.raises(RequestError):
                operations.sign(control, "epic1", pem.encode(), DAY)


def test_a_certificate_of_another_cluster_is_refused(control: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other", NOW)
    operations.control(other, NAMES, group=None, life=LIFE)
    node = node_of(control, tmp_path)
    request = operations.request(node, "epic2")["request"]
    foreign = operations.sign(other, "epic2", request.encode(), DAY)["certificate"]
    with pytest.raises(PkiError, match="not of this cluster's authority"):
        operations.install(node, foreign.encode())


def test_a_node_cannot_sign(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    request = operations.request(node, "epic2")["request"]
    with pytest.raises(PkiError, match="signed on the control host"):
        operations.sign(node, "epic2", request.encode(), DAY)


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
    operations.control(pki, NAMES, group=None, life=LIFE)
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


def test_an_identity_is_read_whole_while_it_is_replaced(control: Pki, tmp_path: Path) -> None:
    node = node_of(control, tmp_path)
    found = [enrol(control, node, renew=True) for _ in range(2)]
    path, files = node.path / "agent.pem", [each.pem() for each in found]
    reading = threading.Event()

    def replace() -> None:
        for number in range(200):
            write(path, files[number % 2], 0o600)
            reading.wait(0.001)
        reading.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen = 0
    while not reading.is_set():
        identity = read_identity(path)
        assert identity is not None
        assert identity.pem() in files
        seen += 1
    writer.join()
    assert seen


@pytest.mark.parametrize("replaced", ["agents.crt", "agents.key"])
def test_nothing_is_signed_while_only_one_half_of_the_authority_is_replaced(
    control: Pki, tmp_path: Path, replaced: str
) -> None:
    other = Pki(tmp_path / "other", NOW)
    operations.control(other, NAMES, group=None, life=LIFE)
    (control.path / replaced).write_bytes((other.path / replaced).read_bytes())
    issuer = Issuer(control.path / "agents.crt", control.path / "agents.key", control.path / "ca.crt")
    request = operations.request(node_of(control, tmp_path), "epic2")["request"]
    with pytest.raises(PkiError, match="both are being replaced"):
        issuer.renew("epic2", request.encode())


@pytest.mark.parametrize("replaced", ["server.crt", "server.key"])
def test_a_server_shows_no_certificate_of_another_key(control: Pki, tmp_path: Path, replaced: str) -> None:
    other = Pki(tmp_path / "other", NOW)
    operations.control(other, NAMES, group=None, life=LIFE)
    (control.path / replaced).write_bytes((other.path / replaced).read_bytes())
    files = ServerFiles(control.path / "server.crt", control.path / "server.key", control.path / "agents.crt")
    with pytest.raises(PkiError, match="is not of the key in"):
        files.configuration()
