# SPDX-License-Identifier: Apache-2.0
"""Objects as a client writes them, and their translation."""

from __future__ import annotations

from typing import Any

import yaml

from epic.controller.classes import CoreSettings
from epic.controller.core import translate
from epic.controller.desired import Desired
from epic.controller.objects import Document, Objects, parse

HOST = CoreSettings(cluster="lab", node_name="node1", node_address="192.168.50.11")

SHOP = """
apiVersion: puregw.epic-gateway.org/v1
kind: GatewayClassConfig
metadata: {name: epic, namespace: shop}
spec:
  epic: {gateway-hostname: "epic1:8443", service-account: shop, service-key: secret, user-namespace: shop,
         gateway-template: http, cluster-name: lab}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: epic}
spec:
  controllerName: epic-gateway.org/puregw
  parametersRef: {group: puregw.epic-gateway.org, kind: GatewayClassConfig, namespace: shop, name: epic}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  gatewayClassName: epic
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: web}]
  hostnames: [shop.example.net]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [192.168.50.11]}]
ports: [{name: http, port: 8080}]
"""


def shop(**changes: Any) -> list[dict[str, Any]]:
    """The objects of SHOP; `Kind=function` changes one, `Kind=None` leaves it out."""
    found = []
    for content in yaml.safe_load_all(SHOP):
        kind = content["kind"]
        if kind in changes and changes[kind] is None:
            continue
        if kind in changes:
            changes[kind](content)
        found.append(content)
    return found


def translated(contents: list[dict[str, Any]], settings: CoreSettings = HOST) -> Desired:
    """What the objects ask for."""
    objects, problems = parse(Document("shop.yaml", content) for content in contents)
    assert not problems, problems
    return translate(Objects(objects), settings)
