# SPDX-License-Identifier: Apache-2.0
"""An object of each kind with something in every field, and any objects of a kind."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from epic.kinds.kind import Kind
from epic.kinds.registry import KINDS
from epic.model.base import Resource

TIME = "2026-03-04T05:06:07Z"
_METADATA = {
    "labels": {"app": "shop", "epic.acnodal.io/owning-account": "root"},
    "annotations": {"puregw.epic-gateway.org/sources": "c1/host"},
    "creationTimestamp": TIME,
    "deletionTimestamp": TIME,
    "generation": 3,
}
_CLIENT = {
    "clusterID": "c1",
    "namespace": "shop",
    "name": "web",
    "uid": "U1",
    "creationTimestamp": "2026-03-04T05:06:07Z",
}
_CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "all is well",
    "lastTransitionTime": TIME,
    "observedGeneration": 3,
}
_KEY = {"epoch": 2, "secret": "0f" * 16}
_POOL = {"pool": "203.0.113.10-203.0.113.20", "subnet": "203.0.113.0/24", "aggregation": "/32"}
_REF = {"group": "", "kind": "Service", "namespace": "shop", "name": "S1", "port": 80}
_PARENT = {
    "group": "gateway.networking.k8s.io",
    "kind": "Gateway",
    "namespace": "shop",
    "name": "U1",
    "port": 80,
}
_FILTER = {"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "Auth", "name": "a"}}
_TUNNEL_END = {
    "epic-address": "192.0.2.1",
    "epic-port": {"port": 6080, "protocol": "UDP", "appProtocol": "gue"},
    "tunnel-id": 7,
}
_LISTENER = {
    "name": "http",
    "port": 80,
    "protocol": "HTTP",
    "hostname": "*.example.net",
    "tls": {"mode": "Terminate", "certificateRefs": [{"name": "cert"}]},
    "allowedRoutes": {"namespaces": {"from": "All"}, "kinds": [{"kind": "HTTPRoute"}]},
}
_GATEWAY = {
    "gatewayClassName": "epic",
    "listeners": [_LISTENER],
    "addresses": [{"type": "IPAddress", "value": "203.0.113.9"}],
    "infrastructure": {"labels": {"team": "shop"}},
    "allowedListeners": {"namespaces": {"from": "All"}},
    "tls": {"frontend": {"default": {}}},
    "defaultScope": "All",
}
_INSTANCE = {
    "node": "epic1",
    "inside-address": "100.64.0.9",
    "phase": "Serving",
    "since": TIME,
    "reason": "why",
    "goal": "park",
    "drain-seconds": 30,
    "unit": "current",
    "envoy-version": "1.40.0",
    "run-error": "none",
    "hold": "waits",
    "unconnected": "pending",
    "short": True,
    "listed": True,
    "awaits": ["epic3"],
    "ready": True,
    "announced": True,
    "drained": True,
    "serving-revision": "abc",
    "error": "NodeSilent: why",
}
_NODE_STATUS = {
    "phase": "Ready",
    "since": TIME,
    "conditions": [_CONDITION],
    "last-report": TIME,
    "agent-version": "0.1.0",
    "removals": 4,
    "lost": True,
    "emptied": True,
    "returning": True,
    "applied-digest": "a",
    "meant-digest": "b",
    "held-gateways": ["root.U1"],
    "problems": ["one"],
    "envoy-versions": ["1.40.0"],
    "second-chance": True,
    "second-chance-refusal": "why",
    "bgp": {
        "configured": 2,
        "established": 1,
        "down": [{"name": "router1", "address": "192.0.2.254", "since": TIME, "error": "timeout"}],
        "failure": "why",
    },
}
_SIBLING = {
    "node": "epic1",
    "index": 3,
    "address": "192.0.2.1",
    "draining": True,
    "joined": 1,
    "left": 2,
    "since": TIME,
}
_ROUTE = {
    "http": {
        "parentRefs": [{**_PARENT, "sectionName": "http"}],
        "hostnames": ["a.example.net"],
        "rules": [
            {
                "name": "first",
                "matches": [
                    {
                        "path": {"type": "Exact", "value": "/a"},
                        "headers": [{"type": "Exact", "name": "x-a", "value": "b"}],
                        "queryParams": [{"name": "q", "value": "1"}],
                        "method": "GET",
                    }
                ],
                "backendRefs": [{**_REF, "weight": 3, "filters": [_FILTER]}],
                "filters": [_FILTER],
                "timeouts": {"request": "1s"},
                "retry": {"attempts": 2},
                "sessionPersistence": {"type": "Cookie"},
            }
        ],
    },
    "tcp": {
        "parentRefs": [{**_PARENT, "sectionName": "tcp"}],
        "rules": [{"name": "only", "backendRefs": [{**_REF, "weight": 2, "filters": [_FILTER]}]}],
    },
    "grpc": {
        "parentRefs": [{**_PARENT, "sectionName": "grpc"}],
        "hostnames": ["g.example.net"],
        "rules": [
            {
                "name": "calls",
                "matches": [
                    {
                        "method": {"type": "RegularExpression", "service": "shop.Cart", "method": "Add"},
                        "headers": [{"type": "Exact", "name": "x-a", "value": "b"}],
                    }
                ],
                "backendRefs": [{**_REF, "weight": 3, "filters": [_FILTER]}],
                "filters": [_FILTER],
                "sessionPersistence": {"type": "Cookie"},
            }
        ],
    },
    "tls": {
        "parentRefs": [{**_PARENT, "sectionName": "tls"}],
        "hostnames": ["t.example.net"],
        "rules": [{"name": "only", "backendRefs": [{**_REF, "weight": 2, "filters": [_FILTER]}]}],
    },
    "udp": {
        "parentRefs": [{**_PARENT, "sectionName": "udp"}],
        "rules": [{"name": "only", "backendRefs": [{**_REF, "weight": 2, "filters": [_FILTER]}]}],
    },
}
_CONTENT: dict[str, dict[str, Any]] = {
    "Account": {
        "spec": {
            "proxyLimit": 3,
            "workloadNodeLimit": 4,
            "tunnelLimit": 5,
            "endpointLimit": 6,
            "routeLimit": 7,
            "sliceLimit": 8,
            "bytesLimit": 9,
        },
    },
    "User": {"spec": {"password-hash": "$argon2id$x", "admin": True, "cluster-ids": ["c1"]}},
    "ServicePrefix": {"spec": {"public-pool": _POOL, "alt-pool": _POOL}},
    "LBServiceGroup": {
        "spec": {
            "service-prefix": "default",
            "can-be-shared": True,
            "envoy-version": "1.40.0",
            "envoy-replica-count": 3,
            "envoy-template": {
                "envoyResources": {
                    name: [{"name": "one", "value": "name: {{ ClusterName }}"}]
                    for name in ("clusters", "listeners", "routes")
                }
            },
            "endpoint-template": {
                "dnsName": "{{ LBName }}.example.net",
                "recordType": "AAAA",
                "recordTTL": 60,
            },
        }
    },
    "Node": {
        "spec": {
            "address": "192.0.2.1",
            "management-address": "198.51.100.1",
            "underlay-mtu": 9000,
            "capacity": 9,
            "schedulable": False,
            "drain": True,
            "unheard-ok": True,
        },
        "status": _NODE_STATUS,
    },
    "GWProxy": {
        "spec": {
            "clientRef": _CLIENT,
            "display-name": "web",
            "public-ports": [{"name": "http", "protocol": "UDP", "port": 80, "targetPort": 8080}],
            "gateway": _GATEWAY,
            "group": "gatewayhttp",
            "service-prefix": "default",
            "public-address": "203.0.113.9",
            "alt-address": "2001:db8::9",
            "endpoints": [
                {
                    "dnsName": "web.example.net",
                    "targets": ["203.0.113.9"],
                    "recordType": "AAAA",
                    "recordTTL": 60,
                }
            ],
            "gue-tunnel-endpoints": {"10.0.0.5": {"epic-endpoints": {"192.0.2.1": _TUNNEL_END}}},
        },
        "status": {
            "service": 7,
            "unmapped-cluster": "c1",
            "instances": [_INSTANCE],
            "unplaced": 1,
            "unconnected": 2,
            "crowded-out": 3,
            "revision": "abc",
            "conditions": [_CONDITION],
        },
    },
    "GWMember": {
        "spec": {
            "clientRef": _CLIENT,
            "sharing-key": "K1",
            "display-name": "web",
            "public-ports": [{"name": "http", "protocol": "UDP", "port": 80, "targetPort": 8080}],
            "gateway": _GATEWAY,
            "group": "gatewayhttp",
            "joined": 3,
        }
    },
    "GWRoute": {"spec": {"clientRef": _CLIENT, **_ROUTE}},
    "GWEndpointSlice": {
        "spec": {
            "clientRef": _CLIENT,
            "parentRef": {**_CLIENT, "uid": "S1"},
            "addressType": "IPv6",
            "endpoints": [
                {
                    "addresses": ["2001:db8::1"],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": "n1",
                }
            ],
            "ports": [{"name": "http", "protocol": "UDP", "port": 8080}],
            "nodeAddresses": {"n1": "2001:db8::9"},
        }
    },
    "LoadBalancer": {
        "spec": {
            "display-name": "web",
            "public-ports": [{"name": "http", "protocol": "UDP", "port": 80, "targetPort": 8080}],
            "upstream-clusters": ["c1"],
            "true-ingress": False,
            "group": "gatewayhttp",
        }
    },
    "RemoteEndpoint": {
        "spec": {
            "cluster": "c1",
            "address": "10.1.2.3",
            "node-address": "10.0.0.5",
            "port": {"name": "http", "protocol": "UDP", "port": 8080},
            "load-balancer": "B1",
        }
    },
    "NodeRevocation": {"spec": {"before": TIME}},
    "Quarantine": {
        "spec": {
            "gateway": "root.U1",
            "node": "epic1",
            "inside-address": "100.64.0.9",
            "public-address": "203.0.113.9",
            "alt-address": "2001:db8::9",
            "dns-names": ["web.example.net"],
            "until": TIME,
        }
    },
    "ReleasedAddress": {"spec": {"account": "root", "released": TIME}},
    "Tunnel": {
        "spec": {
            "proxy": "U1",
            "service": 7,
            "epic-node": "epic1",
            "inside-address": "100.64.0.9",
            "cluster-id": "c1",
            "node-name": "n1",
            "node-address": "10.0.0.5",
            "keys": [_KEY],
            "signing-epoch": 2,
            "signing-since": TIME,
        }
    },
    "TunnelBacklog": {"spec": {"gateways": ["U1", "U2"]}},
    "Siblings": {
        "spec": {
            "public-address": "203.0.113.9",
            "alt-address": "2001:db8::9",
            "siblings": [_SIBLING],
            "former": [{"node": "epic2", "index": 4, "left": 2, "epoch": 1, "dismissed": True}],
            "keys": [_KEY],
            "signing-epoch": 2,
            "signing-since": TIME,
            "generation": 5,
            "changed": TIME,
            "versions": [{"generation": 5, "version": "v"}],
        }
    },
    "Run": {
        "spec": {"playbook": "gateways", "nodes": ["epic1"], "cancel": True},
        "status": {
            "state": "failed",
            "not-before": TIME,
            "started": TIME,
            "finished": TIME,
            "attempt": 2,
            "nodes": {
                "epic1": {"state": "failed", "task": "t", "message": "m", "errors": {"root.U1": "e"}},
            },
            "message": "why",
        },
    },
}
_NAMES = {"Quarantine": "12", "ReleasedAddress": "203.0.113.9", "Tunnel": "34", "Run": "56"}


def content(kind: Kind[Any]) -> dict[str, Any]:
    """The JSON of an object with something else than the default in every field."""
    account = "root" if kind.of_account else ""
    name = _NAMES.get(kind.name, "U1" if kind.of_account else "one")
    return deepcopy({"metadata": {"name": name, "namespace": account, **_METADATA}, **_CONTENT[kind.name]})


def sample(kind: Kind[Any], revision: int = 0) -> Resource:
    """The object."""
    found = kind.model.model_validate(content(kind)).at(revision)
    assert isinstance(found, Resource)
    return found


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def objects(draw: st.DrawFn, kinds: Iterable[Kind[Any]] = KINDS) -> Resource:
    """An object of any of the kinds, of which any optional fields are missing and some texts are others."""
    kind = draw(st.sampled_from(list(kinds)))
    whole = content(kind)
    for part in ("metadata", "spec", "status"):
        if part in whole:
            model = kind.model.model_fields[part].annotation
            assert model is not None
            optional = {
                info.alias or name for name, info in model.model_fields.items() if not info.is_required()
            }
            left_out = draw(st.sets(st.sampled_from(sorted(optional)))) if optional else set()
            whole[part] = {key: value for key, value in whole[part].items() if key not in left_out}
    if "labels" in whole["metadata"]:
        whole["metadata"]["labels"] = draw(st.dictionaries(TEXTS, TEXTS, max_size=3))
    found = kind.model.model_validate(whole).at(draw(st.integers(0, 2**53)))
    assert isinstance(found, Resource)
    return found
