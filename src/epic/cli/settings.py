# SPDX-License-Identifier: Apache-2.0
"""epicctl's configuration: which server, and as whom."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from pathlib import Path

import yaml
from pydantic import SecretStr, ValidationError

from epic.client import EpicClient
from epic.controller.objects import explain
from epic.errors import Invalid
from epic.model.base import Kebab

DEFAULT_PATH = Path("~/.epicctl.yaml")
_EXAMPLE = (
    "it holds for example:\n  server: https://epic1:8443\n  username: admin\n  password: …\n  ca-file: ca.crt"
)


class Settings(Kebab):
    """What the configuration file may say. Files that it names are beside it where they are not absolute."""

    server: str
    username: str
    password: SecretStr | None = None
    password_file: Path | None = None
    ca_file: Path | None = None

    def secret(self) -> SecretStr:
        """The password: from the configuration, the file it names, or the terminal."""
        if self.password is not None:
            return self.password
        if self.password_file is not None:
            return SecretStr(read_secret(self.password_file))
        if not sys.stdin.isatty():
            raise Invalid("no password: put `password` or `password-file` into epicctl's configuration")
        return SecretStr(getpass.getpass(f"Password of {self.username} at {self.server}: "))


def load(path: Path | None) -> Settings:
    """The settings of the file given, named by EPICCTL_CONFIG, or in the home directory."""
    chosen = path or Path(os.environ.get("EPICCTL_CONFIG") or DEFAULT_PATH)
    file = chosen.expanduser()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Invalid(f"there is no configuration {file}; {_EXAMPLE}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise Invalid(f"{file}: is not YAML: {error}") from error
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        raise Invalid(f"{file}: {explain(error)}; {_EXAMPLE}") from error
    if settings.password is not None and stat.S_IMODE(file.stat().st_mode) & 0o077:
        print(f"epicctl: {file} holds a password and others may read it; chmod 600 {file}", file=sys.stderr)
    named = {"password_file": settings.password_file, "ca_file": settings.ca_file}
    beside = {key: file.parent / path.expanduser() for key, path in named.items() if path is not None}
    return settings.model_copy(update=beside)


def connect(settings: Settings, password: SecretStr) -> EpicClient:
    """A client of the server, as the user."""
    secret = password.get_secret_value()
    return EpicClient(settings.server, settings.username, secret, settings.ca_file)


def read_secret(path: Path) -> str:
    """The first line of a file that holds a secret."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise Invalid(f"password file {path}: {reason}") from error
    if not lines or not lines[0]:
        raise Invalid(f"password file {path} is empty; its first line is the password")
    return lines[0]
