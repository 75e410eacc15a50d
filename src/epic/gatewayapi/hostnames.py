# SPDX-License-Identifier: Apache-2.0
"""Hostnames: equal names match, `*.x` covers every name below x but not x itself, `*` covers all."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

ANY = "*"

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_LONGEST = 253


def is_hostname(text: str) -> bool:
    """Whether `text` is a lower-case DNS name, perhaps with `*` as its first label."""
    return len(text) <= _LONGEST and _HOSTNAME.fullmatch(text) is not None


def covers(wide: str, narrow: str) -> bool:
    """Whether every name that `narrow` stands for is covered by `wide`."""
    if wide in (ANY, narrow):
        return True
    # "*.x" as a suffix is ".x": it covers "a.x", "a.b.x", "*.b.x", and not "x".
    return wide.startswith("*.") and narrow.endswith(wide[1:])


def intersection(one: str, other: str) -> str | None:
    """The names that both cover, as a hostname: the narrower of the two, or None."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def covering(hostname: str) -> Iterator[str]:
    """What covers this hostname, the most specific first: itself, longer wildcards, shorter ones, `*`."""
    yield hostname
    rest = hostname.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if hostname != ANY:
        yield ANY


def most_specific(candidates: Collection[str], hostname: str) -> str | None:
    """The most specific of the candidates that cover `hostname`."""
    return next((wide for wide in covering(hostname) if wide in candidates), None)
