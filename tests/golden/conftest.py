# SPDX-License-Identifier: Apache-2.0
"""The option that writes the outputs anew."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write the golden outputs instead of comparing")
