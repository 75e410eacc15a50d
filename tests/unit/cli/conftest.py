# SPDX-License-Identifier: Apache-2.0
"""epicctl as a user runs it, against the real API, or one of the test's own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from epic.cli import main, settings
from epic.cli.printing import output

EXAMPLES = Path(__file__).parents[3] / "examples" / "shop"
Epicctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path, live_api: Any) -> Path:
    config = tmp_path / "epicctl.yaml"
    config.write_text(
        yaml.safe_dump({"server": live_api.url, "username": live_api.username, "password": live_api.password})
    )
    config.chmod(0o600)
    return config


@pytest.fixture
def epicctl(config: Path, monkeypatch: pytest.MonkeyPatch) -> Epicctl:
    """Runs epicctl in this process: to start another one takes longer than all that it does."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(output.console, "width", 200)

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = ["epicctl", "--config", str(config), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            pytest.raises(SystemExit) as ended,
        ):
            main.run()
        return subprocess.CompletedProcess(command, ended.value.code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def epicctl_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Callable[..., Result]]:
    """Runs epicctl against what stands in for the API."""
    config = tmp_path / "epicctl.yaml"
    config.write_text(yaml.safe_dump({"server": "https://epic1:8443", "username": "a", "password": "b"}))
    config.chmod(0o600)
    # The console writes to where standard output is at its making.
    monkeypatch.setattr(output.console, "_file", None)

    def of(api: Any) -> Callable[..., Result]:
        monkeypatch.setattr(settings, "connect", lambda *_: api)
        return lambda *arguments, **more: CliRunner().invoke(
            main.app, ["--config", str(config), *arguments], **more
        )

    return of


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A copy of the example, with a password for its user."""
    for name in ("platform.yaml", "gateway.yaml"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    (tmp_path / "shop.key").write_text("shop-password\n")
    return tmp_path
