# SPDX-License-Identifier: Apache-2.0
"""A real etcd, of one member, with TLS, that can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epic.store.etcd.settings import EtcdSettings

BINARY = Path(__file__).parents[2] / ".cache" / "etcd" / "etcd"
_START_SECONDS = 30.0


def require_etcd() -> None:
    """Skip the test where etcd was not built, unless EPIC_ETCD=required."""
    if not BINARY.exists():
        message = "etcd is not built: tools/setup --etcd"
        if os.environ.get("EPIC_ETCD") == "required":
            pytest.fail(message)
        pytest.skip(message)


class EtcdServer:
    """One member with its data and certificates in a directory."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._directory = directory
        self._arguments = arguments
        self._port, self._peer_port = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / "log"
        make_certificates(directory)

    def settings(self, prefix: str = "/epic/") -> EtcdSettings:
        """How to reach it."""
        return EtcdSettings(
            endpoints=(f"127.0.0.1:{self._port}",),
            prefix=prefix,
            authority=self._directory / "authority.pem",
            certificate=self._directory / "client.pem",
            key=self._directory / "client.key",
            timeout_seconds=30.0,  # a busy machine is no fault
        )

    def start(self) -> None:
        """Start it, and wait until it serves."""
        client, peer = f"https://127.0.0.1:{self._port}", f"http://127.0.0.1:{self._peer_port}"
        command = [str(BINARY), "--name=test", f"--data-dir={self._directory / 'data'}", "--log-level=warn"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command += [f"--initial-cluster=test={peer}", f"--cert-file={self._directory / 'server.pem'}"]
        command += [f"--key-file={self._directory / 'server.key'}", "--client-cert-auth"]
        command += [f"--trusted-ca-file={self._directory / 'authority.pem'}", *self._arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_ready()

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """Let it answer nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # All of its threads: one may be about to answer.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=20)

    def _wait_ready(self) -> None:
        context = ssl.create_default_context(cafile=str(self._directory / "authority.pem"))
        context.load_cert_chain(self._directory / "client.pem", self._directory / "client.key")
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                with (
                    socket.create_connection(("127.0.0.1", self._port), 1) as plain,
                    context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
                ):
                    connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                    if b"200 OK" in connection.recv(1000):
                        return
            except OSError:
                pass
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"etcd does not serve: {self._log.read_text()}")


def make_certificates(directory: Path) -> None:
    """An authority, a server of 127.0.0.1 and a client."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("authority", authority_key, None, authority_key)
    _write(directory, "authority", authority, authority_key)
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(directory, name, _certificate(name, key, authority, authority_key), key)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _write(
    directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_file = directory / f"{name}.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
