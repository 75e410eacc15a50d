# SPDX-License-Identifier: Apache-2.0
"""The first administrator: a credential in a file of root's, its hash in the store."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import yaml

from epic.api.access.auth import hash_password, verify_password
from epic.errors import Conflict, Invalid
from epic.model.base import Metadata
from epic.model.resources import User, UserSpec
from epic.store.interface import Store

_NAME = "admin"
_ATTEMPTS = 100


def ensure_admin(store: Store, credential_file: Path) -> bool:
    """Make the credential and the user where they are missing or do not fit; whether something changed."""
    credential = _read(credential_file)
    made = credential is None
    name, password = credential or (_NAME, secrets.token_urlsafe(24))
    if made:
        _write(credential_file, name, password)
    stored = store.find(User, "", name)
    if stored and stored.spec.admin and verify_password(stored.spec.password_hash, password):
        return made
    spec = UserSpec(password_hash=hash_password(password), admin=True)
    for left in reversed(range(_ATTEMPTS)):
        try:
            _save(store, name, spec)
        except Conflict:  # the control plane has just written something
            if not left:
                raise
        else:
            break
    return True


def _save(store: Store, name: str, spec: UserSpec) -> None:
    with store.transaction() as transaction:
        stored = transaction.find(User, "", name)
        if stored is None:
            transaction.create(User(metadata=Metadata(name=name), spec=spec))
        else:
            transaction.update(stored.model_copy(update={"spec": spec}))


def _read(path: Path) -> tuple[str, str] | None:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return None
    except yaml.YAMLError:
        content = None
    match content:
        case {"username": str(name), "password": str(password)} if name and password:
            return name, password
        case _:
            raise Invalid(
                f"{path}: expected the keys username and password; delete the file and a new one is made"
            )


def _write(path: Path, name: str, password: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        yaml.safe_dump({"username": name, "password": password}, file, sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
