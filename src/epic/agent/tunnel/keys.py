# SPDX-License-Identifier: Apache-2.0
"""Pure: keys as the programs hold them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

KEY_BYTES = 16


class KeySlots(NamedTuple):
    """Keys by the parity of their epochs, which epochs these are, and the one that signs."""

    slots: tuple[bytes | None, bytes | None]
    epochs: tuple[int, ...]
    signing: int


def key_slots(keys: Iterable[tuple[int, bytes]], signing: int) -> KeySlots:
    """The two slots of keys; that of epoch `signing` signs."""
    slots: list[bytes | None] = [None, None]
    newest = sorted(keys)[-2:]
    epochs = tuple(epoch for epoch, _ in newest)
    for epoch, secret in newest:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"the key of epoch {epoch} has {len(secret)} bytes instead of {KEY_BYTES}")
        slots[epoch % 2] = secret
    if not epochs:
        raise ValueError("there must be at least one key")
    if len(epochs) == 2 and (epochs[0] - epochs[1]) % 2 == 0:
        raise ValueError(f"the keys' epochs {epochs[0]} and {epochs[1]} need the same slot")
    if signing not in epochs:
        raise ValueError(f"the key of epoch {signing} is to sign, but the keys are of {epochs}")
    return KeySlots((slots[0], slots[1]), epochs, signing)
