# SPDX-License-Identifier: Apache-2.0
"""The keys of tunnels change under traffic."""

from __future__ import annotations

from hosts import Lab, Target, tally
from tunnel_keys import rotate

from epic.client import EpicClient


def test_keys_are_rotated_without_losing_a_request(
    lab: Lab, api: EpicClient, web: object, web_target: Target
) -> None:
    load = lab.load(web_target, 2000, 0.02)
    rotate(api, within=120)
    replies = load.stop()
    replies += lab.request(web_target, 40)
    assert {r.status for r in replies} == {200}, tally(replies)
