"""What `agent.yaml` may say."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from epic.errors import Invalid


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ControlSettings(_Strict):
    """Where epic-control listens for agents, and this node's identity there."""

    address: Annotated[str, Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")]
    ca: Path
    certificate: Path
    key: Path


class UnderlaySettings(_Strict):
    """The interface and address that tunnels use."""

    interface: Annotated[str, Field(min_length=1, max_length=15)]
    address: IPv4Address


class MetricsSettings(_Strict):
    """Where Prometheus finds metrics; port 0 serves none."""

    address: IPv4Address = IPv4Address("127.0.0.1")
    port: Annotated[int, Field(ge=0, le=65535)] = 9101


class CommonSettings(_Strict):
    """What both roles need."""

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    underlay: UnderlaySettings
    state_directory: Path = Path("/var/lib/epic/agent")
    run_directory: Path = Path("/run/epic")
    pin_directory: Path = Path("/sys/fs/bpf/epic")
    metrics: MetricsSettings = MetricsSettings()
    object: Path = Path(__file__).parent.parent / "bpf" / "gue.bpf.o"


class GatewaySettings(CommonSettings):
    """An EPIC node."""

    role: Literal["gateway"]
    control: ControlSettings
    envoy_group: str = "epic-envoy"


class WorkloadSettings(CommonSettings):
    """A node of a client, where backends run."""

    role: Literal["workload"]
    cluster: Annotated[str, Field(min_length=1)]
    manifests: Path
    ca: Path | None = None


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
    return f"{key}: {message}"
