# SPDX-License-Identifier: Apache-2.0
"""/etc/epic/firewall.nft as the role firewall makes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).parents[2]
INSIDE_POOL, INSIDE_POOL6 = "100.64.0.0/10", "fd65:7069:6300::/96"


def _of_family() -> Any:
    path = ROOT / "plugins/filter/networks.py"
    spec = importlib.util.spec_from_file_location("epic_networks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.of_family


def firewall_rules(*, gateways: bool = True, services: list[dict[str, Any]] | None = None) -> str:
    """The file of a host with or without gateways; `services` are the role's _firewall_services."""
    environment = Environment(
        loader=FileSystemLoader(ROOT / "roles/firewall/templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 it makes no HTML
    )
    environment.filters["epic.gateway.of_family"] = _of_family()
    return environment.get_template("firewall.nft.j2").render(
        _firewall_gateways=gateways,
        _firewall_services=services or [],
        cluster_inside_pool=INSIDE_POOL,
        cluster_inside_pool6=INSIDE_POOL6,
    )
