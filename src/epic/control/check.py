# SPDX-License-Identifier: Apache-2.0
"""Whether a control plane could be run by a configuration, before it is."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path

import yaml
from pydantic import ValidationError

from epic.control.settings import load_settings
from epic.errors import Invalid
from epic.store.location import StoreLocation, try_location


def check(config: Path, user: str | None, instead_of: Path | None) -> None:
    """Try the configuration as the user who is to be served; raises EpicError with what is wrong.

    A store elsewhere than the one of `instead_of`, which is in use, must have objects: nodes would be told to
    remove all that an empty one does not have.
    """
    settings = load_settings(config)
    before = None if instead_of is None else _location_of(instead_of)
    if user is not None:
        _become(user)
    has_store = asyncio.run(try_location(settings.store))
    if before is not None and not has_store and not _are_same(before, settings.store):
        raise Invalid(
            f"store: {settings.store.title} is empty, and the objects are in {before.title}. "
            "Stop epic-control, take them along (epicctl backup, epicctl restore) and repeat this; "
            f"or remove {instead_of} to begin anew"
        )


def _location_of(config: Path) -> StoreLocation | None:
    """Of a file that this version may not understand otherwise."""
    try:
        return StoreLocation.model_validate(yaml.safe_load(config.read_text())["store"])
    except (FileNotFoundError, yaml.YAMLError, ValidationError, KeyError, TypeError):
        return None


def _are_same(one: StoreLocation, other: StoreLocation) -> bool:
    """Members of an etcd come and go, but not all at once."""
    if one.etcd is None or other.etcd is None:
        return one.sqlite is not None and one.sqlite == other.sqlite
    return one.etcd.prefix == other.etcd.prefix and not set(one.etcd.endpoints).isdisjoint(
        other.etcd.endpoints
    )


def _become(user: str) -> None:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise Invalid(f"there is no user {user}") from None
    if os.geteuid() != entry.pw_uid:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
