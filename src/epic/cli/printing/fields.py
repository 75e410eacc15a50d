# SPDX-License-Identifier: Apache-2.0
"""Reading objects as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
ROUTE_TYPES = ("http", "tcp", "grpc", "tls", "udp")


def dig(row: Any, *keys: str) -> Any:
    """A value inside an object; None when anything on the way is absent."""
    for key in keys:
        row = row.get(key) if isinstance(row, dict) else None
    return row


def age(text: Any, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    if not isinstance(text, str) or not text:
        return "-"
    return span(((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds())


def span(seconds: float) -> str:
    """So many seconds, in one unit."""
    seconds = int(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def addresses(gateway: Row) -> list[str]:
    """A gateway's public addresses, of its spec or of what a member is told of it."""
    return [address for key in ("public-address", "alt-address") if (address := gateway.get(key))]


def route_spec(row: Row) -> tuple[str, Row]:
    """A route's type, such as http, and its spec; empty ones where it has none that is known."""
    spec = dig(row, "spec") or {}
    return next(((name, spec[name]) for name in ROUTE_TYPES if spec.get(name)), ("", {}))


def condition(row: Row, kind: str) -> Row:
    """An object's condition of a type; empty when it has none."""
    return next((c for c in dig(row, "status", "conditions") or () if c.get("type") == kind), {})
