# SPDX-License-Identifier: Apache-2.0
"""The keys of tunnels, as administrators see and change them."""

from __future__ import annotations

from hosts import eventually

from epic.client import EpicClient

_TUNNELS = "/api/epic/tunnels"


def epochs(api: EpicClient) -> dict[int, int]:
    """The signing epoch of every tunnel."""
    return {tunnel["id"]: tunnel["key"]["epoch"] for tunnel in api.get(_TUNNELS)["items"]}


def rotate(api: EpicClient, *, within: float) -> None:
    """Have a newer key sign on every tunnel that there is.

    A tunnel whose rotation is under way by itself, for up to a minute, begins no other one before it is over.
    """
    before = epochs(api)
    assert before

    def is_rotated() -> bool:
        if all(epoch > before[tunnel] for tunnel, epoch in epochs(api).items() if tunnel in before):
            return True
        api.post(f"{_TUNNELS}/rotate", {})
        return False

    eventually(is_rotated, within=within, what="a higher signing epoch on every tunnel", every=1)
