"""Templates: Jinja2 in a sandbox that renders one YAML object from plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import jinja2
import jinja2.sandbox
import yaml

from epic.errors import Invalid
from epic.gatewayapi.routing import Port, Routing, WeightedCluster
from epic.model.resources import EnvoyResources, Template

Kind = Literal["cluster", "listener", "route"]
Variables = Mapping[str, object]

_LARGEST = 1 << 20
# Characters that YAML takes as line breaks or does not take at all; JSON leaves them as they are.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Task:
    """A template to be rendered with these variables."""

    kind: Kind
    template: Template
    variables: Variables


def quoted(value: object) -> str:
    """JSON that is YAML too, whatever the value holds."""
    return _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False))


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["tojson"] = quoted
    return environment


_ENVIRONMENT = _environment()


def _default(name: str) -> Template:
    return Template(
        name=f"default {name}", value=(files(__package__) / "templates" / f"{name}.yaml.j2").read_text()
    )


_CLUSTER = _default("cluster")
_LISTENERS = {"HTTP": _default("listener_http"), "TCP": _default("listener_tcp")}
_ROUTES = _default("routes")


def tasks(routing: Routing, templates: EnvoyResources) -> list[Task]:
    """What must be rendered for a gateway; a type without templates gets the default ones."""
    common: dict[str, object] = {
        "ServiceNamespace": routing.gateway.account,
        "ServiceName": routing.gateway.proxy,
        "PureLBServiceName": routing.display_name,
        "PublicAddress": str(routing.public_address),
    }
    found: list[Task] = []
    for cluster in routing.clusters:
        variables: dict[str, object] = {**common, "ClusterName": cluster.name}
        found += [Task("cluster", t, variables) for t in templates.clusters or (_CLUSTER,)]
    for port in routing.ports:
        variables = {**common, **_port_variables(port)}
        found += [Task("listener", t, variables) for t in templates.listeners or (_LISTENERS[port.protocol],)]
        if port.protocol == "HTTP":
            found += [Task("route", t, variables) for t in templates.routes or (_ROUTES,)]
    return found


def load(task: Task) -> dict[str, object] | None:
    """Render and parse a template; None when it renders to nothing. Raises Invalid."""
    try:
        body = _parse(_render(task))
    except jinja2.TemplateError as error:
        line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise Invalid(f"{title(task)}: {error.message or type(error).__name__}{line}") from error
    except yaml.YAMLError as error:
        raise Invalid(f"{title(task)} renders no YAML: {_brief(error)}") from error
    # Templates call methods of what they are given; their mistakes surface as Python's own errors.
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise Invalid(f"{title(task)}: {type(error).__name__}: {error}") from error
    if body is None:
        return None
    if not isinstance(body, dict):
        raise Invalid(f"{title(task)} renders a {type(body).__name__}; it must render one object")
    return body


def title(task: Task) -> str:
    """What to call a task in messages."""
    variables = task.variables
    subject = variables["ClusterName"] if task.kind == "cluster" else variables["PortName"]
    return f"{task.kind.capitalize()} template {task.template.name!r} for {subject}"


def _render(task: Task) -> str:
    pieces, size = [], 0
    for piece in _ENVIRONMENT.from_string(task.template.value).generate(task.variables):
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST:
            raise Invalid(f"{title(task)} renders more than {_LARGEST} characters")
    return "".join(pieces)


def _parse(text: str) -> object:
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_aliases(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_aliases(root: yaml.Node) -> None:
    # A few aliases of aliases can stand for gigabytes.
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            raise yaml.YAMLError("aliases (`*name`) are not allowed")
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]


def _brief(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return str(error)


def _port_variables(port: Port) -> dict[str, object]:
    return {
        "PortName": port.name,
        "Port": port.number,
        "Protocol": "TCP",
        "GatewayProtocol": port.protocol,
        "Clusters": _clusters(port.backends),
        "VirtualHosts": [
            {
                "Name": host.hostname,
                "Domains": [host.hostname],
                "Routes": [
                    {
                        "Name": route.name,
                        "Path": {"Type": route.path_type, "Value": route.path},
                        "Headers": [{"Name": h.name, "Value": h.value} for h in route.headers],
                        "Clusters": _clusters(route.backends),
                    }
                    for route in host.routes
                ],
            }
            for host in port.virtual_hosts
        ],
    }


def _clusters(shares: Iterable[WeightedCluster]) -> list[dict[str, object]]:
    return [{"Name": share.cluster, "Weight": share.weight} for share in shares]
