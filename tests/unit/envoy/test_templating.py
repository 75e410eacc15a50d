# SPDX-License-Identifier: Apache-2.0
"""Templates: what they render, and what they cannot do."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from epic.envoy.rendering import quoted
from epic.envoy.templating import VARIABLES, Task, check, load, tasks
from epic.errors import Invalid
from epic.gatewayapi.routing import Cluster, HTTPRoute, Port, Routing, VirtualHost
from epic.model.resources import EnvoyResources, Template
from epic.model.values.naming import GatewayId


def render(text: str, **variables: object) -> dict[str, object] | None:
    return load(Task("cluster", Template(name="mine", value=text), {"ClusterName": "svc", **variables}))


@given(
    st.text()
    | st.lists(st.text())
    | st.dictionaries(st.text(min_size=1, max_size=20), st.text() | st.integers())
)
def test_whatever_is_quoted_is_read_back_as_it_was(value: object) -> None:
    assert yaml.load(f"a: {quoted(value)}\n", Loader=yaml.CSafeLoader) == {"a": value}


def test_a_value_cannot_add_fields() -> None:
    assert render("name: {{ Name | tojson }}\n", Name='x"\ntype: STATIC') == {"name": 'x"\ntype: STATIC'}


def test_nothing_rendered_is_nothing() -> None:
    assert render("{% if False %}name: x{% endif %}\n# only a comment\n") is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: {{ Unknown }}", "'Unknown' is undefined"),
        ("name: {{ ClusterName", "in line 1"),
        ("a\nb: {% nonsense %}", "unknown tag 'nonsense'. in line 2"),
        ("name: [", "renders no YAML"),
        ("- a\n- b", "it renders a list; it must render one object"),
        ("a: &x 1\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [id]", "renders no YAML"),
        ("a: {{ 1 / 0 }}", "ZeroDivisionError"),
        ("a: {{ ClusterName.__class__.__mro__ }}", "unsafe"),
        ("a: {{ ''.__class__ }}", "unsafe"),
        ("a: {{ ClusterName | attr('__class__') }}", "unsafe"),
        ("a: {{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ Names.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for i in range(99999) %}0123456789abcdef{% endfor %}", "renders more than 1048576 characters"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
    ],
)
def test_a_faulty_template_is_refused_with_its_name(text: str, fault: str) -> None:
    with pytest.raises(Invalid, match=r"^Cluster template 'mine' for svc") as refusal:
        render(text, Names=[])
    assert fault in str(refusal.value)


def test_templates_may_use_just_what_they_are_given() -> None:
    addresses = (IPv4Address("203.0.113.1"),)
    routing = Routing(GatewayId("shop", "gw"), "shop", addresses, (Port(80, "HTTP"),), (Cluster("web", 80),))
    mine = (Template(name="mine", value=""),)
    templates = EnvoyResources(clusters=mine, listeners=mine, routes=mine)
    given = {task.kind: task.variables.keys() for task in tasks(routing, templates)}
    assert given == VARIABLES


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: {{ ClusterName", "in line 1"),
        ("a\nb: {% nonsense %}", "unknown tag 'nonsense'. in line 2"),
        ("name: {{ PortName }}", "there is no PortName; it may use AltAddress, ClusterName, PublicAddress"),
    ],
)
def test_what_is_no_template_is_found_without_rendering_it(text: str, fault: str) -> None:
    text_of_good = "{% set n = ClusterName %}{{ n }}{% for i in range(2) %}{{ i }}{% endfor %}"
    good = Template(name="good", value=text_of_good)
    templates = EnvoyResources(clusters=(good, Template(name="mine", value=text)))
    with pytest.raises(Invalid, match=r"^group\.envoyResources\.clusters\.1: template 'mine': ") as refusal:
        check(templates, "group")
    assert fault in str(refusal.value)
    check(EnvoyResources(clusters=(good,)), "group")


def test_a_route_that_is_for_many_hostnames_has_its_variables_once() -> None:
    found = HTTPRoute("r", "Exact", "/", (), ())
    hosts = (VirtualHost("a", (found,)), VirtualHost("b", (found,)))
    ports = (Port(80, "HTTP", virtual_hosts=hosts),)
    routing = Routing(GatewayId("shop", "gw"), "shop", (IPv4Address("203.0.113.1"),), ports, ())
    (task,) = tasks(routing, EnvoyResources(routes=(Template(name="mine", value=""),)))
    rendered = task.variables["VirtualHosts"]
    assert isinstance(rendered, list)
    first, second = (host["Routes"][0] for host in rendered)
    assert first is second
