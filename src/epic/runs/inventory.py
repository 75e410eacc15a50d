# SPDX-License-Identifier: Apache-2.0
"""A run's inventory, pure: each node with the complete list of its instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

from epic.ipam.networks import inside6
from epic.lifecycle.sequencer import is_left_out, may_restart, some_version
from epic.model.resources import GWProxy, LBServiceGroup, Node
from epic.model.values.naming import GatewayId, instance_interface
from epic.runs.settings import RunSettings

_TUNNEL_OVERHEAD = {4: 48, 6: 68}
"""The outer IP header, UDP, GUE and its private data, by the family that the node's address is of."""


@dataclass(frozen=True)
class NodePlan:
    """A node and the instances that it is to run, as the playbook takes them.

    `removed` are instances that are known and left out: gateway and inside address. Of the gateways in `kept`
    it is not known what the node is to run: what it has of them stays as it is.
    """

    node: Node
    instances: tuple[dict[str, Any], ...]
    removed: frozenset[tuple[str, IPv4Address]] = frozenset()
    kept: frozenset[str] = frozenset()

    def version(self, gateway: str, inside: IPv4Address) -> str | None:
        """The version of Envoy of the instance with that inside address; None: it is not among them."""
        return self._versions.get((gateway, str(inside)))

    @cached_property
    def _versions(self) -> dict[tuple[str, str], str]:
        return {(i["gateway"], i["inside_address"]): str(i["envoy_version"]) for i in self.instances}


@dataclass(frozen=True)
class Unreadable:
    """What is there and cannot be read: gateways, and gateway templates by account and name."""

    gateways: frozenset[GatewayId] = frozenset()
    groups: frozenset[tuple[str, str]] = frozenset()


NOTHING = Unreadable()


def plan_nodes(
    nodes: Iterable[Node],
    proxies: Iterable[GWProxy],
    groups: Iterable[LBServiceGroup],
    envoy_version: str,
    pool6: IPv6Network,
    unreadable: Unreadable = NOTHING,
) -> dict[str, NodePlan]:
    """For each node, by name, all that it is to run.

    An instance whose template cannot be read keeps its Envoy; a new one gets one that another instance has.
    """
    versions = {(group.account, group.name): group.spec.envoy_version for group in groups}
    planned: dict[str, tuple[Node, list[dict[str, Any]]]] = {node.name: (node, []) for node in nodes}
    removed: dict[str, set[tuple[str, IPv4Address]]] = defaultdict(set)
    kept: dict[str, set[str]] = {name: set(map(str, unreadable.gateways)) for name in planned}
    for proxy in proxies:
        template = (proxy.account, proxy.spec.group)
        keeps_versions = template in unreadable.groups
        version = versions.get(template) or envoy_version
        if keeps_versions:
            version = some_version(proxy.status.instances)
        for instance in proxy.status.instances:
            if instance.node not in planned:
                continue
            inside = instance.inside_address
            if is_left_out(instance):
                removed[instance.node].add((str(proxy.id), inside))
                continue
            node, instances = planned[instance.node]
            envoy = (instance.envoy_version if keeps_versions else "") or version
            if not envoy:
                kept[instance.node].add(str(proxy.id))
                continue
            described = _instance(proxy, (inside, inside6(pool6, inside)), node, envoy)
            instances.append(described | {"may_restart": may_restart(instance)})
    return {
        name: NodePlan(node, tuple(instances), frozenset(removed[name]), frozenset(kept[name]))
        for name, (node, instances) in planned.items()
    }


def _instance(
    proxy: GWProxy, inside: tuple[IPv4Address, IPv6Address], node: Node, version: str
) -> dict[str, Any]:
    ipv4, ipv6 = inside
    # Nodes of a version that knows no second address take gateways that have none.
    alt = {} if proxy.spec.alt_address is None else {"alt_address": str(proxy.spec.alt_address)}
    return {
        "gateway": str(proxy.id),
        "account": proxy.account,
        "node_id": proxy.id.envoy_node_id,
        "public_address": str(proxy.spec.public_address),
        **alt,
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
                    "epic_kept_gateways": sorted(plan.kept),
                }
                for name, plan in sorted(plans.items())
            },
        }
    }
