# SPDX-License-Identifier: Apache-2.0
"""control.yaml."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from epic.ads.identity.issuer import Issuer
from epic.api.access.connections import Limits
from epic.errors import Invalid
from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.model.gatewayapi import PortNumber
from epic.model.values.naming import ObjectName
from epic.rotation import Policy
from epic.runs.settings import RunSettings
from epic.store.location import StoreLocation

_MAPPED_BITS = 20
_PLAYBOOK = "ansible_collections/epic/gateway/playbooks/gateways.yml"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ServerSection(_Section):
    """Where something listens, and its certificate. `::` is every address, of both families."""

    listen: IPvAnyAddress = IPv6Address("::")
    certificate: Path
    key: Path


class RestSettings(_ServerSection):
    """The REST API; `connections` is how many may be open, of which `Limits` says who may have how many."""

    port: PortNumber = 8443
    connections: Annotated[int, Field(ge=64, le=32768)] = Limits().connections

    def limits(self) -> Limits:
        """The same with its shares."""
        return Limits(self.connections)


class AdsSettings(_ServerSection):
    """Where agents connect. Their certificates are of the agents' authority; they trust `ca` for its own.

    Those of workload nodes come to a port of their own.
    """

    port: PortNumber = 18000
    workload_port: PortNumber = 18001
    ca: Path
    agents_certificate: Path
    agents_key: Path
    agent_hours: Annotated[float, Field(gt=0, le=24 * 825)] = 24

    def issuer(self) -> Issuer:
        """Who renews the certificates of agents."""
        life = timedelta(hours=self.agent_hours)
        return Issuer(self.agents_certificate, self.agents_key, self.ca, life)


class RunsSection(_Section):
    """How playbooks are run."""

    directory: Path
    collections: Path
    ssh_key: Path
    user: str = "root"
    python: str = "/usr/bin/python3"
    playbook: Path | None = None
    timeout_seconds: Annotated[int, Field(ge=10)] = 300


class TunnelsSection(_Section):
    """How long a tunnel's key signs, and how long it still verifies afterwards."""

    key_minutes: Annotated[float, Field(gt=0, le=60 * 24 * 365)] = 10
    grace_seconds: Annotated[float, Field(ge=1, le=3600)] = 30

    def policy(self) -> Policy:
        """The same for the rotation."""
        return Policy(timedelta(minutes=self.key_minutes), timedelta(seconds=self.grace_seconds))


class MetricsSettings(_Section):
    """Where Prometheus finds metrics; port 0 serves none. Agents have theirs at 9101."""

    address: IPv4Address = IPv4Address("127.0.0.1")
    port: Annotated[int, Field(ge=0, le=65535)] = 9102


class ControlSettings(_Section):
    """The whole file."""

    node_name: ObjectName
    store: StoreLocation
    revisions: Path
    rest: RestSettings
    ads: AdsSettings
    envoy_binary: Path
    envoy_version: str
    inside_pool: IPv4Network = IPv4Network("100.64.0.0/10")
    inside_pool6: IPv6Network = DEFAULT_POOLS.inside6
    mapped_pool: IPv4Network = DEFAULT_POOLS.mapped
    mapped_pool6: IPv6Network = DEFAULT_POOLS.mapped6
    drain_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    address_quarantine_seconds: Annotated[int, Field(ge=0, le=86400)] = 300
    runs: RunsSection
    tunnels: TunnelsSection = TunnelsSection()
    metrics: MetricsSettings = MetricsSettings()

    @field_validator("inside_pool6")
    @classmethod
    def _holds_every_ipv4_address(cls, pool: IPv6Network) -> IPv6Network:
        if pool.prefixlen != 96:
            raise ValueError("it must be a /96, for its addresses end with the IPv4 inside addresses")
        return pool

    @field_validator("mapped_pool", "mapped_pool6")
    @classmethod
    def _is_large_and_apart(cls, pool: IPv4Network | IPv6Network, info: ValidationInfo) -> object:
        longest = pool.max_prefixlen - _MAPPED_BITS
        if pool.prefixlen > longest:
            raise ValueError(f"it must be a /{longest} or larger, else its addresses collide")
        inside = info.data.get("inside_pool" if pool.version == 4 else "inside_pool6")
        if inside is not None and pool.overlaps(inside):
            raise ValueError(f"it overlaps the pool of inside addresses {inside}")
        return pool

    def pools(self) -> Pools:
        """Networks that addresses are derived from."""
        return Pools(self.inside_pool6, self.mapped_pool, self.mapped_pool6)

    def run_settings(self) -> RunSettings:
        """What runs need to know."""
        runs = self.runs
        return RunSettings(
            directory=runs.directory,
            playbook=runs.playbook or runs.collections / _PLAYBOOK,
            collections=runs.collections,
            ssh_key=runs.ssh_key,
            envoy_version=self.envoy_version,
            user=runs.user,
            python=runs.python,
            timeout_seconds=runs.timeout_seconds,
        )


def load_settings(path: Path) -> ControlSettings:
    """The settings in the file; raises Invalid, naming the file and the key."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise Invalid(f"{path} is not YAML: {error}") from None
    try:
        return ControlSettings.model_validate(content)
    except ValidationError as error:
        raise Invalid("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from None


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    match error["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            section = _section(error["loc"][:-1])
            return f"{key} is not known; known here are {', '.join(section.model_fields)}"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return f"{key}: {message} (it is {error['input']!r})"


def _section(location: tuple[str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = ControlSettings
    for key in location:
        annotation = model.model_fields[key].annotation
        # Of a section that need not be there it is the section, or None.
        found = next(kind for kind in (*get_args(annotation), annotation) if kind is not type(None))
        assert isinstance(found, type)  # noqa: S101 only sections hold unknown keys
        model = found
    return model
