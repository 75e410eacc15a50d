# SPDX-License-Identifier: Apache-2.0
"""The keys of tunnels change under traffic."""

from __future__ import annotations

from hosts import Lab, Target, eventually, tally

from epic.client import EpicClient

TUNNELS = "/api/epic/tunnels"


def epochs(api: EpicClient) -> dict[int, int]:
    """The signing epoch of every tunnel."""
    return {tunnel["id"]: tunnel["key"]["epoch"] for tunnel in api.get(TUNNELS)["items"]}


def test_keys_are_rotated_without_losing_a_request(
    lab: Lab, api: EpicClient, web: object, web_target: Target
) -> None:
    before = epochs(api)
    assert before
    load = lab.load(web_target, 500, 0.02)
    api.post(f"{TUNNELS}/rotate", {})
    eventually(
        lambda: all(epoch > before[tunnel] for tunnel, epoch in epochs(api).items() if tunnel in before),
        within=60,
        what="a higher signing epoch on every tunnel",
    )
    replies = load.stop()
    replies += lab.request(web_target, 40)
    assert {r.status for r in replies} == {200}, tally(replies)
