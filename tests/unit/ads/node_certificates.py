# SPDX-License-Identifier: Apache-2.0
"""Certificates as the roles give them to a control host and its nodes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from epic.ads.identity.issuer import Issuer
from epic.pki import operations
from epic.pki.operations import Pki

SERVER = ["127.0.0.1"]
LIFE = timedelta(hours=24)


def issue(directory: Path, name: str, life: timedelta = LIFE, at: datetime | None = None) -> Path:
    """The control host's authorities in `directory/control`, and a node's identity in `directory/NAME`."""
    now = (at or datetime.now(UTC)).replace(microsecond=0)
    control, node = Pki(directory / "control", now), Pki(directory / name, now)
    for pki in (control, node):
        pki.path.mkdir(exist_ok=True)
    operations.control(control, SERVER, None, timedelta(days=30))
    for known in ("ca.crt", "agents.crt"):
        shutil.copy(control.path / known, node.path / known)
    asked = operations.request(node, name, renew=True)
    signed = operations.sign(control, name, asked["request"].encode(), life)
    operations.install(node, signed["certificate"].encode())
    return node.path


def issue_workload(directory: Path, name: str) -> Path:
    """The identity of a workload node by the same control host, in `directory/NAME`."""
    node = Pki(directory / name, datetime.now(UTC).replace(microsecond=0))
    node.path.mkdir()
    asked = operations.request(node, "workload", renew=True)["request"].encode()
    made = issuer(directory).issue_workload(f"epic-workload:shop/c/{name}/shop/shop/00", asked)
    for known in ("ca.crt", "agents.crt"):
        shutil.copy(directory / "control" / known, node.path / known)
    operations.install(node, made.certificate)
    return node.path


def issuer(directory: Path, life: timedelta = LIFE) -> Issuer:
    """Who renews certificates for the control host of `directory`."""
    control = directory / "control"
    return Issuer(control / "agents.crt", control / "agents.key", control / "ca.crt", life)
