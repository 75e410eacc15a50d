# SPDX-License-Identifier: Apache-2.0
"""A run of epicctl: which server, as whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from epic.cli import settings
from epic.client import EpicClient
from epic.controller.classes import Login


@dataclass
class Session:
    """The server and the user, connected when first needed."""

    config: Path | None

    @cached_property
    def settings(self) -> settings.Settings:
        """The configuration."""
        return settings.load(self.config)

    @cached_property
    def login(self) -> Login:
        """Server and credentials."""
        found = self.settings
        return Login(found.server.rstrip("/"), found.username, found.secret())

    @cached_property
    def client(self) -> EpicClient:
        """The REST client."""
        return settings.connect(self.settings, self.login.password)

    @property
    def unattended(self) -> bool:
        """Whether the configuration knows the password, so that nobody need be asked."""
        return self.settings.password is not None or self.settings.password_file is not None
