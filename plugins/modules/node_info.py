#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Look at EPIC nodes
version_added: 0.1.0
description:
  - Tells how the nodes of an EPIC cluster are, with their phases, conditions, and instances.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes.info
  - epic.gateway.api
options:
  name: {description: Only the node of this name; all if not given., type: str}
  unheard_ok:
    description: Whether a node that no router hears counts as serving.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Wait until all instances of all nodes serve
  epic.gateway.node_info:
    url: https://epic1:8443
    credential_file: /etc/epic/admin.yaml
    ca_file: /etc/epic/pki/ca.crt
  register: cluster
  until: cluster.nodes | rejectattr('serving') | length == 0
  retries: 60
  delay: 5
  delegate_to: epic1
"""

RETURN = r"""
nodes:
  description: The nodes, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: The node's name., type: str}
    spec: {description: Its specification., type: dict}
    phase:
      description: C(Joining), C(Ready), C(Cordoned), C(Draining) or C(Removing).
      type: str
    conditions: {description: The status of its conditions by their types., type: dict}
    instances: {description: How many of its instances are in which phase., type: dict}
    serving:
      description: Whether it is at work with all its instances, and (see O(unheard_ok)) routers hear it.
      type: bool
    last_report: {description: When its agent last reported; empty if never., type: str}
    agent_version: {description: The version of its agent; empty if it never reported., type: str}
  sample:
    - name: epic1
      spec: {address: 172.30.11.2}
      phase: Ready
      conditions: {Ready: "True"}
      instances: {Serving: 12}
      serving: true
      last_report: "2026-01-01T12:00:00Z"
      agent_version: 0.1.0
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._api import CONNECTION_SPEC, ApiError, connect
from ansible_collections.epic.gateway.plugins.module_utils._nodes import instances, is_serving, phase

SPEC = {**CONNECTION_SPEC, "name": {"type": "str"}, "unheard_ok": {"type": "bool", "default": False}}


def shown(node, unheard_ok=False):
    """What is returned of a node."""
    status = node.get("status", {})
    return {
        "name": node["metadata"]["name"],
        "spec": node.get("spec", {}),
        "phase": phase(node),
        "conditions": {c["type"]: c["status"] for c in status.get("conditions") or ()},
        "instances": instances(node),
        "serving": is_serving(node, unheard_ok),
        "last_report": status.get("last-report") or "",
        "agent_version": status.get("agent-version") or "",
    }


def fetch(api, name):
    """The nodes asked for; a node that there is not is nobody."""
    if name:
        reply = api.get("nodes", name)
        return [] if reply is None else [reply["node"]]
    return api.items("nodes")


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        nodes = fetch(connect(module.params), module.params["name"])
    except (ApiError, OSError) as error:
        module.fail_json(msg=str(error))
    found = [shown(node, module.params["unheard_ok"]) for node in nodes]
    module.exit_json(changed=False, nodes=sorted(found, key=lambda node: node["name"]))


if __name__ == "__main__":
    main()
