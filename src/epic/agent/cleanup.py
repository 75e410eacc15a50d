"""Removing all kernel state of the agent, when EPIC leaves the node."""

from __future__ import annotations

import logging

from epic.agent.netlink import Netlink
from epic.agent.nft import PortSet
from epic.agent.settings import GatewaySettings, Settings
from epic.bpf.dataplane import Dataplane

log = logging.getLogger(__name__)


def clean_up(settings: Settings) -> None:
    """Withdraw and remove routes, close ports, detach programs and remove their maps."""
    netlink = Netlink()
    try:
        for address in netlink.flags():
            netlink.remove_flag(address)
        for route in netlink.host_routes():
            netlink.remove_host_route(route)
    finally:
        netlink.close()
    if isinstance(settings, GatewaySettings):
        ports = PortSet()
        open_ports = ports.elements()
        if open_ports:
            ports.change(delete=open_ports)
        (settings.run_directory / "xds.sock").unlink(missing_ok=True)
    Dataplane(settings.pin_directory, settings.object).unload()
    log.info("removed routes, ports and tunnel programs of EPIC")
