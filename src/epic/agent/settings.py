# SPDX-License-Identifier: Apache-2.0
"""What `agent.yaml` may say."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from epic.bpf.dataplane import Receive
from epic.bpf.packets.wire import MAX_LANES
from epic.errors import Invalid

UnderlayAddress = Annotated[
    IPv4Address | IPv6Address,
    PlainValidator(lambda given: ip_address(given if isinstance(given, str) else "")),
]
Interface = Annotated[str, Field(min_length=1, max_length=15, pattern=r"^[^\s/]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ControlSettings(_Strict):
    """Where epic-control listens for agents, and the directory of this node's key and certificates."""

    address: Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")]
    pki: Path = Path("/etc/epic/pki")

    @property
    def ca(self) -> Path:
        """The authorities to trust for epic-control."""
        return self.pki / "ca.crt"

    @property
    def identity(self) -> Path:
        """This node's key and certificate, in one file."""
        return self.pki / "agent.pem"


class UnderlaySettings(_Strict):
    """The interfaces that tunnels use."""

    interface: Interface | None = None
    interfaces: tuple[Interface, ...] = ()
    address: UnderlayAddress | None = None
    receive: Receive = "tc"

    @property
    def names(self) -> tuple[str, ...]:
        """The interfaces, however they were given."""
        return (self.interface,) if self.interface else self.interfaces

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> UnderlaySettings:
        if (self.interface is None) == (not self.interfaces):
            raise ValueError("either `interface` (one name) or `interfaces` (a list of names) is needed")
        if len(set(self.interfaces)) != len(self.interfaces):
            raise ValueError(f"`interfaces` names one twice: {', '.join(self.interfaces)}")
        if self.address is not None and (self.address.is_unspecified or self.address.is_multicast):
            raise ValueError(f"`address` {self.address} is no address of a host")
        return self


class WorkloadUnderlay(UnderlaySettings):
    """The interfaces of a workload node, and how its ends of tunnels send and deliver."""

    lanes: Annotated[int, Field(ge=1, le=MAX_LANES)] = 1
    spread: bool = False
    checksum: bool = False
    delivery: Literal["stack", "pods"] = "stack"


class MetricsSettings(_Strict):
    """Where Prometheus finds metrics; port 0 serves none."""

    address: IPv4Address = IPv4Address("127.0.0.1")
    port: Annotated[int, Field(ge=0, le=65535)] = 9101


class CommonSettings(_Strict):
    """What both roles need."""

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    state_directory: Path = Path("/var/lib/epic/agent")
    run_directory: Path = Path("/run/epic")
    pin_directory: Path = Path("/sys/fs/bpf/epic")
    metrics: MetricsSettings = MetricsSettings()
    object: Path = Path(__file__).parent.parent / "bpf" / "gue.bpf.o"


class GatewaySettings(CommonSettings):
    """An EPIC node.

    `bird`: the control socket of the BIRD that announces its gateways; None: something else does.
    """

    role: Literal["gateway"]
    underlay: UnderlaySettings
    control: ControlSettings
    second_chance: bool = True
    firewall: Path = Path("/etc/epic/firewall.nft")
    bird: Path | None = None

    @property
    def gateway_ports(self) -> Path:
        """Where the agent keeps the ports that are open, for the firewall's file to include."""
        return self.run_directory / "gateway-ports.nft"


class WorkloadSettings(CommonSettings):
    """A node of a client, where backends run.

    Where it published so many objects or more, `hold_removals_from`, it does not withdraw more than half of
    them at once without a confirmation; with 0 it always does.
    """

    role: Literal["workload"]
    underlay: WorkloadUnderlay
    cluster: Annotated[str, Field(min_length=1)]
    manifests: Path
    hold_removals_from: Annotated[int, Field(ge=0)] = 10
    ca: Path | None = None

    @property
    def statuses(self) -> Path:
        """Where files say what became of the manifests' objects."""
        return self.state_directory / "status"


Settings = GatewaySettings | WorkloadSettings
_ADAPTER: TypeAdapter[Settings] = TypeAdapter(Annotated[Settings, Field(discriminator="role")])


def load(path: Path) -> Settings:
    """The settings in `path`; what is wrong with them is said with file and key."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise Invalid(f"{path}: is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise Invalid(f"{path}: must be a mapping with at least `role`, `node_name` and `underlay`")
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise Invalid("\n".join(f"{path}: {line}" for line in _lines(error))) from error


def _lines(error: ValidationError) -> list[str]:
    return [_line(tuple(e["loc"]), e["type"], e["msg"]) for e in error.errors(include_input=False)]


def _line(location: tuple[int | str, ...], kind: str, message: str) -> str:
    if kind.startswith("union_tag"):
        return "role: must be `gateway` (an EPIC node) or `workload` (a node with backends)"
    # The first part of the location is the role that chose among the two kinds of settings.
    key = ".".join(str(part) for part in location[1:])
    if kind == "extra_forbidden":
        return f"{key}: there is no such key"
    if kind == "missing":
        return f"{key}: is missing"
    return f"{key}: {message.removeprefix('Value error, ')}"
