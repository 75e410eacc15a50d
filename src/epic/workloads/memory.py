# SPDX-License-Identifier: Apache-2.0
"""Pure: how much the streams of one account may keep of what its nodes have named and not answered."""

from __future__ import annotations

_BASE_BYTES = 32 << 20
# Four streams of a node, each of which names its tunnels when it begins: some 240 bytes each.
_BYTES_OF_TUNNEL = 1 << 10
_OF_STREAM = 64 << 10
"""What a stream keeps in any case: else a node that names much would end those of others of its account."""


def keep_refusal(account: str, tunnels: int, kept: int, total: int) -> str | None:
    """Why a stream of an account with this limit of tunnels may not keep so many bytes, which makes its
    streams keep `total`; None: it may."""
    most = _BASE_BYTES + _BYTES_OF_TUNNEL * tunnels
    if total <= most or kept <= _OF_STREAM:
        return None
    return (
        f"the streams of account {account!r} would keep {total} bytes of names of tunnels and of what is "
        f"unanswered, {kept} of them this one; they may keep {most}, by a tunnelLimit of {tunnels}"
    )
