# SPDX-License-Identifier: Apache-2.0
"""Pure: the instances a node should run against those it has, and the files of each."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from typing import Any

CONFIGURATION = "/etc/epic/gateways"
RUNTIME = "/run/epic/gateways"
UNITS = "/etc/systemd/system"
AGENT_SOCKET = "/run/epic/agent/xds.sock"
"""In every unit of an Envoy the agent's socket for that gateway, and no other's."""
SOCKET_PATH_MAX = 107
MAX_CONNECTIONS = 100_000
"""Of clients, per Envoy; well below the unit's limit of open files, which upstreams need too."""

_GATEWAY = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_INTERFACE = re.compile(r"epg[0-9a-f]{12}")
_VERSION = re.compile(r"[0-9A-Za-z][-+.0-9A-Za-z]*")
_UNIQUE = (
    ("gateway",),
    ("interface",),
    ("public_address", "alt_address"),
    ("inside_address",),
    ("inside_address6",),
)
_ADDRESS6 = "an IPv6 address in its shortest form, without a zone"


class InstanceError(ValueError):
    """A wanted instance that cannot be."""


@dataclass(frozen=True)
class Instance:
    """A gateway's Envoy on this node."""

    gateway: str
    account: str
    node_id: str
    public_address: str
    inside_address: str
    inside_address6: str
    interface: str
    mtu: int
    envoy_version: str
    concurrency: int
    alt_address: str = ""
    """The gateway's address of the other family, if it has one."""

    @property
    def public_addresses(self) -> list[str]:
        return [address for address in (self.public_address, self.alt_address) if address]

    @property
    def network(self) -> tuple[list[str], str, str, str, int]:
        """What the network namespace is made from; a change of it needs a new one."""
        return (self.public_addresses, self.inside_address, self.inside_address6, self.interface, self.mtu)

    @property
    def admin_socket(self) -> str:
        return f"{RUNTIME}/{self.gateway}/admin.sock"

    def files(self) -> dict[str, str]:
        """The instance's files: path and text."""
        description, configuration, environment, user = paths(self.gateway)
        return {
            description: _json(_description(self)),
            configuration: _json(bootstrap(self)),
            environment: _environment(self),
            # else all instances of the template share a dynamic user; the interface's name is this one's own
            user: f"# Managed by EPIC.\n[Service]\nUser={self.interface}\n",
        }


@dataclass(frozen=True)
class Found:
    """What is on the node under a gateway's name."""

    files: dict[str, str]
    running: bool = False
    enabled: bool = False
    namespace: bool = False


@dataclass(frozen=True)
class Action:
    """What to do about one gateway: create, replace, update, start, remove, deferred or none."""

    gateway: str
    action: str
    before: dict[str, str]
    after: dict[str, str]

    @property
    def changed(self) -> bool:
        return self.action not in {"none", "deferred"}

    def differences(self) -> list[tuple[str, str, str]]:
        """Path, text before and text after of every file that differs."""
        names = sorted(self.before.keys() | self.after.keys())
        texts = [(path, self.before.get(path, ""), self.after.get(path, "")) for path in names]
        return [(path, old, new) for path, old, new in texts if old != new]


def parse(values: dict[str, Any]) -> Instance:
    """The instance of module options that passed the type checks of Ansible."""
    instance = Instance(**{name: value for name, value in values.items() if name != "may_restart"})
    gateway = instance.gateway
    checks = {
        "gateway": (_GATEWAY.fullmatch(gateway), "ACCOUNT.PROXY, for example root.web"),
        "interface": (_INTERFACE.fullmatch(instance.interface), "epg and twelve hexadecimal digits"),
        "public_address": (_family(instance.public_address), f"an IPv4 address, or {_ADDRESS6}"),
        "alt_address": (_is_alternative(instance), "an address of the family that public_address is not of"),
        "inside_address": (_is(IPv4Address, instance.inside_address), "an IPv4 address"),
        "inside_address6": (_is(IPv6Address, instance.inside_address6), _ADDRESS6),
        "envoy_version": (_VERSION.fullmatch(instance.envoy_version), "an Envoy version, for example 1.40.0"),
        "mtu": (576 <= instance.mtu <= 65535, "between 576 and 65535"),
        "concurrency": (1 <= instance.concurrency <= 256, "between 1 and 256"),
    }
    for option, (good, expected) in checks.items():
        if not good:
            raise InstanceError(f"{gateway}: {option} is {values[option]!r}; it must be {expected}")
    if len(instance.admin_socket) > SOCKET_PATH_MAX:
        most = SOCKET_PATH_MAX - len(instance.admin_socket) + len(gateway)
        raise InstanceError(f"{gateway}: the gateway id has {len(gateway)} characters; it may have {most}")
    return instance


def parse_all(items: list[dict[str, Any]]) -> tuple[dict[str, Instance], dict[str, str]]:
    """The wanted instances, and what is wrong with the others, both by gateway.

    Two may not share a name, an interface or an address: then none of them is wanted.
    """
    instances: list[Instance] = []
    errors: dict[str, str] = {}
    for item in items:
        try:
            instances.append(parse(item))
        except InstanceError as error:
            errors[item["gateway"]] = str(error)
    for options in _UNIQUE:
        given = Counter(getattr(instance, option) for instance, option in product(instances, options))
        for instance, option in product(instances, options):
            value = getattr(instance, option)
            if value and given[value] > 1:
                errors[instance.gateway] = f"{option} {value} is given to more than one instance"
    return {i.gateway: i for i in instances if i.gateway not in errors}, errors


def plan(
    wanted: dict[str, Instance], found: dict[str, Found], untouched: Collection[str] = ()
) -> list[Action]:
    """One action for every gateway that is wanted or found, in the order of names.

    Running instances of gateways in `untouched` that are not as wanted are deferred.
    """
    actions = []
    for gateway in sorted(wanted.keys() | found.keys()):
        before = found[gateway].files if gateway in found else {}
        after = wanted[gateway].files() if gateway in wanted else {}
        kind = _kind(wanted.get(gateway), found.get(gateway))
        if kind in {"update", "replace"} and gateway in untouched and found[gateway].running:
            kind, after = "deferred", before
        actions.append(Action(gateway, kind, before, after))
    return actions


def _kind(wanted: Instance | None, found: Found | None) -> str:
    if wanted is None:
        return "remove"
    if found is None or not found.files:
        return "create"
    if found.files != wanted.files():
        made = _instance_of(found)
        # with as little interruption as can be
        return "update" if made is not None and made.network == wanted.network else "replace"
    return "none" if found.running and found.enabled and found.namespace else "start"


def _instance_of(found: Found) -> Instance | None:
    """What the found instance was made from; None if its file cannot tell."""
    try:
        (text,) = [text for path, text in found.files.items() if path.endswith("/instance.json")]
        return Instance(**json.loads(text))
    except (TypeError, ValueError):
        return None


def paths(gateway: str) -> tuple[str, str, str, str]:
    """Where an instance's files are; the last is a drop-in of its unit."""
    directory = f"{CONFIGURATION}/{gateway}"
    user = f"{UNITS}/{envoy_unit(gateway)}.d/user.conf"
    return (f"{directory}/instance.json", f"{directory}/bootstrap.yaml", f"{directory}/netns.env", user)


def envoy_unit(gateway: str) -> str:
    """The unit of the gateway's Envoy."""
    return f"epic-envoy@{gateway}.service"


def namespace_unit(gateway: str) -> str:
    """The unit of the gateway's network namespace."""
    return f"epic-netns@{gateway}.service"


def bootstrap(instance: Instance) -> dict[str, Any]:
    """Envoy's bootstrap: everything else comes from the agent's socket."""
    # short: an Envoy that starts while the agent is away must not wait, the resources come when it is back
    discovery = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.5s"}
    retry = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}}
    agent = {"envoy_grpc": {"cluster_name": "epic-agent", "retry_policy": retry}}
    source = {"source_address": {"address": instance.inside_address, "port_value": 0}}
    return {
        "node": {"id": instance.node_id, "cluster": instance.account},
        "admin": {"address": {"pipe": {"path": instance.admin_socket, "mode": 0o660}}},
        "cluster_manager": {"upstream_bind_config": source},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [agent],
            },
            "cds_config": discovery,
            "lds_config": discovery,
        },
        "static_resources": {"clusters": [_agent_cluster()]},
        "overload_manager": {"resource_monitors": [_connection_limit()]},
    }


def _agent_cluster() -> dict[str, Any]:
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    address = {"endpoint": {"address": {"pipe": {"path": AGENT_SOCKET}}}}
    return {
        "name": "epic-agent",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "epic-agent", "endpoints": [{"lb_endpoints": [address]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _connection_limit() -> dict[str, Any]:
    monitor = "envoy.resource_monitors.global_downstream_max_connections"
    kind = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    limit = {"@type": f"type.googleapis.com/{kind}", "max_active_downstream_connections": MAX_CONNECTIONS}
    return {"name": monitor, "typed_config": limit}


def _environment(instance: Instance) -> str:
    values = {
        "PUBLIC": " ".join(instance.public_addresses),
        "INSIDE": instance.inside_address,
        "INSIDE6": instance.inside_address6,
        "INTERFACE": instance.interface,
        "MTU": instance.mtu,
        "ENVOY_VERSION": instance.envoy_version,
        "CONCURRENCY": instance.concurrency,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _description(instance: Instance) -> dict[str, Any]:
    # without a second address as nodes have it that know of none: a change of the text restarts the Envoy
    return {name: value for name, value in asdict(instance).items() if name != "alt_address" or value}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _is_alternative(instance: Instance) -> bool:
    family = _family(instance.alt_address)
    return not instance.alt_address or (family != 0 and family != _family(instance.public_address))


def _family(text: str) -> int:
    """4 or 6; 0 for what is no address."""
    if _is(IPv4Address, text):
        return 4
    return 6 if _is(IPv6Address, text) else 0


def _is(kind: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        return str(kind(text)) == text and "%" not in text
    except ValueError:
        return False
