# SPDX-License-Identifier: Apache-2.0
"""Pure: gateways as the modules return them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def shown(proxy: Object, template_versions: dict[str, str]) -> Object:
    """What is returned of a gateway; `template_versions`: the Envoys that templates ask for."""
    metadata, spec, status = (proxy.get(key) or {} for key in ("metadata", "spec", "status"))
    instances = [_instance(instance) for instance in status.get("instances") or ()]
    return {
        "account": metadata.get("namespace", ""),
        "name": metadata.get("name", ""),
        "display_name": spec.get("display-name", ""),
        "public_address": spec.get("public-address") or "",
        "alt_address": spec.get("alt-address") or "",
        "deleted": bool(metadata.get("deletionTimestamp")),
        "envoy_version": template_versions.get(spec.get("group", "")) or "",
        "instances": instances,
        "serving": bool(instances) and all(instance["phase"] == "Serving" for instance in instances),
    }


def _instance(instance: Object) -> Object:
    return {
        "node": instance.get("node", ""),
        "phase": instance.get("phase") or "Planned",
        "envoy_version": instance.get("envoy-version") or "",
    }
