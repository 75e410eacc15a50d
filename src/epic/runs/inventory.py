"""A run's inventory, pure: each node with the complete list of its instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

from epic.ipam import inside6
from epic.model.naming import instance_interface
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.runs.settings import RunSettings

_TUNNEL_OVERHEAD = {4: 48, 6: 68}
"""The outer IP header, UDP, GUE and its private data, by the family that the node's address is of."""


@dataclass(frozen=True)
class NodePlan:
    """A node and the instances that it is to run, as the playbook takes them."""

    node: Node
    instances: tuple[dict[str, Any], ...]

    def includes(self, gateway: str, inside: IPv4Address) -> bool:
        """Whether the instance of that inside address is among them."""
        wanted = (gateway, str(inside))
        return any((i["gateway"], i["inside_address"]) == wanted for i in self.instances)


def plan_nodes(
    nodes: Iterable[Node],
    proxies: Iterable[GWProxy],
    groups: Iterable[LBServiceGroup],
    envoy_version: str,
    pool6: IPv6Network,
) -> dict[str, NodePlan]:
    """For each node, by name, all that it is to run."""
    versions = {(group.account, group.name): group.spec.envoy_version for group in groups}
    planned: dict[str, tuple[Node, list[dict[str, Any]]]] = {node.name: (node, []) for node in nodes}
    for proxy in proxies:
        version = versions.get((proxy.account, proxy.spec.group)) or envoy_version
        for instance in proxy.status.instances:
            if instance.node in planned:
                node, instances = planned[instance.node]
                inside = instance.inside_address
                instances.append(_instance(proxy, (inside, inside6(pool6, inside)), node, version))
    return {name: NodePlan(node, tuple(instances)) for name, (node, instances) in planned.items()}


def _instance(
    proxy: GWProxy, inside: tuple[IPv4Address, IPv6Address], node: Node, version: str
) -> dict[str, Any]:
    ipv4, ipv6 = inside
    return {
        "gateway": str(proxy.id),
        "account": proxy.account,
        "node_id": proxy.id.envoy_node_id,
        "public_address": str(proxy.spec.public_address),
        "inside_address": str(ipv4),
        "inside_address6": str(ipv6),
        "interface": instance_interface(str(proxy.id), ipv4),
        "mtu": node.spec.underlay_mtu - _TUNNEL_OVERHEAD[node.spec.address.version],
        "envoy_version": version,
        "concurrency": 1,
    }


def inventory(plans: Mapping[str, NodePlan], settings: RunSettings) -> dict[str, Any]:
    """The inventory in Ansible's YAML structure."""
    return {
        "all": {
            "vars": {
                "ansible_user": settings.user,
                "ansible_ssh_private_key_file": str(settings.ssh_key),
                "ansible_python_interpreter": settings.python,
                # The key is restricted to the command that takes the instances.
                "epic_forced_command": True,
            },
            "hosts": {
                name: {
                    "ansible_host": plan.node.spec.management_address or str(plan.node.spec.address),
                    "epic_instances": list(plan.instances),
                }
                for name, plan in sorted(plans.items())
            },
        }
    }
