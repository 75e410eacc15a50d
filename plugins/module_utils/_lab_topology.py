# SPDX-License-Identifier: Apache-2.0
"""The lab's topology as typed data, read from its YAML form and checked. Pure: no input or output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

MANAGEMENT = "mgmt"
UNDERLAY = "up0"
_LONGEST_INTERFACE = 15
_HOST_KEYS = {"purpose", "management", "gateway", "sysctls", "services", "packages", "masquerade", "bgp"}
_TOPOLOGY_KEYS = {"management", "hosts", "links"}


class TopologyError(ValueError):
    """The topology cannot be built: says which entry is wrong and what would be right."""


@dataclass(frozen=True)
class End:
    """One end of a link: an interface of a host."""

    host: str
    interface: str
    address: IPv4Interface


@dataclass(frozen=True)
class Link:
    """A cable between two hosts."""

    left: End
    right: End


@dataclass(frozen=True)
class Host:
    """A machine of the lab with its own ends of all its links."""

    name: str
    management: IPv4Interface
    gateway: IPv4Address | None
    sysctls: tuple[tuple[str, str], ...]
    services: tuple[str, ...]
    ends: tuple[End, ...]

    @property
    def address(self) -> IPv4Address:
        """The address its name stands for: the underlay's, else the first link's, else the management one."""
        ends = sorted(self.ends, key=lambda end: end.interface != UNDERLAY)
        return ends[0].address.ip if ends else self.management.ip


@dataclass(frozen=True)
class Topology:
    """All hosts and links; `controller` is this machine's address on the management network."""

    controller: IPv4Interface
    hosts: tuple[Host, ...]
    links: tuple[Link, ...]


def read_topology(data: Mapping[str, Any], lab: str) -> Topology:
    """The topology written in `data`, for the lab called `lab`. Raises TopologyError."""
    _only_keys(data, _TOPOLOGY_KEYS, "the topology")
    entries = data.get("hosts") or {}
    if not entries:
        raise TopologyError("the topology has no hosts: 'hosts' maps each host's name to its settings")
    network, controller = _management(data.get("management") or {})
    links = tuple(_link(index, entry, entries) for index, entry in enumerate(data.get("links") or []))
    _no_duplicates(links)
    hosts = tuple(_host(name, entry or {}, network, links) for name, entry in entries.items())
    for host in hosts:
        _check_name(host.name, lab)
    _distinct([controller.ip, *(host.management.ip for host in hosts)], "management address")
    return Topology(controller, hosts, links)


def _management(entry: Mapping[str, Any]) -> tuple[IPv4Network, IPv4Interface]:
    _only_keys(entry, {"network", "controller"}, "management")
    try:
        network = IPv4Network(str(entry["network"]))
        return network, _in_network(str(entry["controller"]), network, "management.controller")
    except KeyError as missing:
        raise TopologyError(f"management lacks {missing}: it needs 'network' and 'controller'") from None
    except ValueError as error:
        raise _as_topology_error(error, "management") from None


def _link(index: int, entry: Mapping[str, Any], hosts: Mapping[str, Any]) -> Link:
    where = f"links[{index}]"
    if not isinstance(entry, Mapping) or len(entry) != 2:
        raise TopologyError(f"{where} must name two hosts, as in {{a: up0 10.0.0.1/24, b: up0 10.0.0.2/24}}")
    left, right = (_end(f"{where}.{host}", str(host), str(text)) for host, text in entry.items())
    for end in (left, right):
        if end.host not in hosts:
            raise TopologyError(
                f"{where}: there is no host {end.host!r}; hosts are {', '.join(sorted(hosts))}"
            )
    if left.address.network != right.address.network:
        raise TopologyError(
            f"{where}: {left.address} and {right.address} are in different networks; one link is one network"
        )
    return Link(left, right)


def _end(where: str, host: str, text: str) -> End:
    interface, _space, address = text.partition(" ")
    if not re.fullmatch(r"[a-z][a-z0-9_.-]{0,14}", interface) or interface == MANAGEMENT:
        raise TopologyError(
            f"{where}: {interface!r} cannot be an interface: at most {_LONGEST_INTERFACE} of a-z 0-9 _ . -, "
            f"and {MANAGEMENT!r} is taken"
        )
    if "/" not in address:
        raise TopologyError(
            f"{where}: write interface and address with its prefix length, as in 'up0 10.0.0.1/24'"
        )
    try:
        return End(host, interface, IPv4Interface(address.strip()))
    except ValueError as error:
        raise _as_topology_error(error, where) from None


def _host(name: str, entry: Mapping[str, Any], network: IPv4Network, links: Iterable[Link]) -> Host:
    where = f"hosts.{name}"
    _only_keys(entry, _HOST_KEYS, where)
    ends = tuple(end for link in links for end in (link.left, link.right) if end.host == name)
    masquerade = entry.get("masquerade")
    if masquerade is not None and masquerade not in {end.interface for end in ends}:
        raise TopologyError(f"{where}.masquerade: {masquerade!r} is not an interface of this host's links")
    if "management" not in entry:
        raise TopologyError(f"{where} lacks 'management', its address in {network}")
    return Host(
        name=name,
        management=_in_network(str(entry["management"]), network, f"{where}.management"),
        gateway=_gateway(entry.get("gateway"), ends, where),
        sysctls=_sysctls(entry.get("sysctls") or {}, where),
        services=tuple(str(service) for service in entry.get("services") or ()),
        ends=ends,
    )


def _gateway(text: str | None, ends: Iterable[End], where: str) -> IPv4Address | None:
    if text is None:
        return None
    try:
        gateway = IPv4Address(text)
    except ValueError as error:
        raise _as_topology_error(error, f"{where}.gateway") from None
    if not any(gateway in end.address.network for end in ends):
        raise TopologyError(f"{where}.gateway: {gateway} is in no network of this host's links")
    return gateway


def _sysctls(entry: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    for key in entry:
        # Hosts have their own network namespace but share the rest of the kernel with this machine.
        if not key.startswith("net."):
            raise TopologyError(
                f"{where}.sysctls: {key!r} would change this machine; only net.* belongs to a host"
            )
    return tuple(sorted((key, str(value)) for key, value in entry.items()))


def _check_name(name: str, lab: str) -> None:
    longest = _LONGEST_INTERFACE - len(lab) - 1
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or len(name) > longest or name == MANAGEMENT:
        raise TopologyError(
            f"hosts.{name}: a host's name is a lower-case DNS label of at most {longest} characters, "
            f"and {MANAGEMENT!r} is taken"
        )


def _in_network(text: str, network: IPv4Network, where: str) -> IPv4Interface:
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise _as_topology_error(error, where) from None
    if address not in network:
        raise TopologyError(f"{where}: {address} is not in the management network {network}")
    return IPv4Interface(f"{address}/{network.prefixlen}")


def _no_duplicates(links: Iterable[Link]) -> None:
    ends = [end for link in links for end in (link.left, link.right)]
    _distinct([f"{end.host}:{end.interface}" for end in ends], "interface")
    _distinct([end.address.ip for end in ends], "link address")


def _distinct(values: Iterable[object], what: str) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise TopologyError(f"the {what} {value} is used twice; each must be given once")
        seen.add(value)


def _only_keys(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise TopologyError(f"{where} must be a mapping of {', '.join(sorted(known))}")
    for key in entry:
        if key not in known:
            raise TopologyError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")


def _as_topology_error(error: ValueError, where: str) -> TopologyError:
    return error if isinstance(error, TopologyError) else TopologyError(f"{where}: {error}")
