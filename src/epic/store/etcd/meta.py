# SPDX-License-Identifier: Apache-2.0
"""What the store knows of itself in etcd: its layout, how its revisions are counted, whether it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from epic.errors import Damaged

LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Meta:
    """Revisions of the store are etcd's plus `offset`: they never go back, by a restore neither."""

    offset: int = 0
    is_restoring: bool = False

    def encode(self) -> bytes:
        """The value to store."""
        return json.dumps({"layout": LAYOUT, "offset": self.offset, "restoring": self.is_restoring}).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raises Damaged for what this version cannot use."""
        try:
            content = json.loads(value)
        except ValueError:
            content = None
        match content:
            case {"layout": 1, "offset": int(offset), "restoring": bool(is_restoring)}:
                return cls(offset, is_restoring)
            case {"layout": int(layout)} if layout > LAYOUT:
                raise Damaged(f"etcd: its layout {layout} is of a newer EPIC; this one reads up to {LAYOUT}")
        raise Damaged(f"etcd: the store's own key holds {value[:80]!r}; restore a backup")
