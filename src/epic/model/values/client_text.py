# SPDX-License-Identifier: Apache-2.0
"""Text that clients give to things of theirs. It comes to logs, tables and others' screens."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_MAX = 253
# Kubernetes' names, and those of Ansible's inventories: upper case, '_', ':' of IPv6 addresses.
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.:@]*[A-Za-z0-9])?")
# Tabs and ends of lines are in annotations and templates.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def _check_name(text: str) -> str:
    if len(text) > _MAX or not _NAME.fullmatch(text):
        raise ValueError(f"a name has 1 to {_MAX} letters a-z, digits and inner '-', '_', '.', ':', '@'")
    return text


def _check_name_or_nothing(text: str) -> str:
    return _check_name(text) if text else text


def _check_line(text: str) -> str:
    if len(text) > _MAX or not text.isprintable():
        raise ValueError(f"expected one line of at most {_MAX} characters that can be printed")
    return text


def find_control_character(text: str) -> str:
    """The first character that no text of a request may have; empty when there is none."""
    # Nearly all texts are, and it is quickly seen.
    if text.isprintable():
        return ""
    found = _CONTROL.search(text)
    return found.group() if found else ""


ClientName = Annotated[str, AfterValidator(_check_name)]
"""The name of a client's node."""

OptionalClientName = Annotated[str, AfterValidator(_check_name_or_nothing)]
"""The name or namespace of a client's object; may be empty."""

ClientLine = Annotated[str, AfterValidator(_check_line)]
"""What a client calls something: a line of any letters."""
