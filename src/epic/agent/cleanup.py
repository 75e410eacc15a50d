# SPDX-License-Identifier: Apache-2.0
"""Removing all kernel state of the agent, when EPIC leaves the node."""

from __future__ import annotations

import logging
from contextlib import suppress
from shutil import rmtree

from epic.agent.gateway import firewall
from epic.agent.netlink.objects import Netlink
from epic.agent.settings import GatewaySettings, Settings
from epic.agent.tunnel.underlay import FILE
from epic.agent.workload.plan import DUMMIES
from epic.bpf.dataplane import Dataplane
from epic.errors import Unavailable

log = logging.getLogger(__name__)


def clean_up(settings: Settings) -> None:
    """Withdraw and remove routes, close ports, detach programs and remove their maps."""
    netlink = Netlink()
    try:
        for address in netlink.flag_routes():
            netlink.remove_flag_route(address)
        netlink.remove_host_routes(netlink.host_routes())
        for name, link in netlink.links().items():
            if name in settings.underlay.names:
                for dummy in DUMMIES.values():
                    with suppress(OSError):
                        netlink.remove_neighbour(link.index, dummy)
    finally:
        netlink.close()
    if isinstance(settings, GatewaySettings):
        settings.gateway_ports.unlink(missing_ok=True)
        with suppress(Unavailable):
            firewall.change_elements(delete=firewall.read_elements())
        rmtree(settings.run_directory / "xds", ignore_errors=True)
    (settings.state_directory / FILE).unlink(missing_ok=True)
    Dataplane(settings.pin_directory, settings.object).unload()
    log.info("removed routes, ports and tunnel programs of EPIC")
