# SPDX-License-Identifier: Apache-2.0
"""Instances come and go as control plane and agents lead them, while the router's next hops change."""

from __future__ import annotations

import time
from collections.abc import Iterable

from churn import PAUSE, NextHops
from loading import Load
from namespaces import eventually
from steering import Site

DRAINED_WITHIN = 20.0


class Lives:
    """Of the gateway's instances, each by its node; those of `members` serve."""

    def __init__(self, site: Site, load: Load, hops: NextHops, members: Iterable[int]) -> None:
        self._site, self._load, self._hops, self._members = site, load, hops, list(members)

    def upgrade(self, index: int) -> None:
        """It is drained, and another Envoy comes in its place."""
        self._drain(index)
        self._leave(index)
        self._site.serving.kill_envoy(self._site.bed.nodes[index])
        self._serve(index)

    def place(self, index: int) -> None:
        """An instance on a node that had none, or had another one."""
        node = self._site.bed.nodes[index]
        self._site.serving.kill_envoy(node)
        node.make_instance_again()
        self._serve(index)

    def remove(self, index: int) -> None:
        """It is drained, and no member any more."""
        self._drain(index)
        self._leave(index)

    def _serve(self, index: int) -> None:
        """The others know the newcomer, then it knows them, and it is announced when it serves."""
        node = self._site.bed.nodes[index]
        self._site.serving.start_envoy(node)
        self._members.append(index)
        self._site.bed.link(self._members)
        self._site.serving.wait_for_envoy(node)
        self._hops.announce(index)

    def _drain(self, index: int) -> None:
        """It is asked first and withdrawn; its connections go on until their clients end them."""
        self._members.sort(key=lambda each: each != index)
        self._site.bed.link(self._members, draining=[index])
        self._hops.withdraw(index)
        time.sleep(2 * PAUSE)
        self._load.renew()
        node = self._site.bed.nodes[index]
        assert eventually(lambda: not node.connections(), DRAINED_WITHIN), node.connections()[:3]

    def _leave(self, index: int) -> None:
        """Nobody passes anything on to it any more, then its programs forget the gateway."""
        self._site.bed.link(self._members, leaving=[index])
        self._members.remove(index)
        self._site.bed.unlink_some([index])
        self._site.bed.link(self._members)
