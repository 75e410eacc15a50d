#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_instances
short_description: Run the gateway instances that a node should run, and no others
version_added: 0.1.0
description:
  - Takes the complete list of a node's instances, and creates, changes, starts or removes what differs.
  - An instance is an Envoy in a network namespace of its own. Its units, C(epic-netns@) and C(epic-envoy@),
    and the Envoy binary are given to the node by the role P(epic.gateway.gateway_node#role).
  - A change of addresses makes the namespace anew; any other change restarts the Envoy only.
  - One instance that cannot be made as it should does not hold up the others; its entry in RV(instances) says
    why, and it is left as it is.
  - Where the variable C(epic_forced_command) is true, as in the control plane's own runs, the options go to
    C(/usr/libexec/epic/epic-instances) on the node, for the runs' key is restricted to it.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  instances:
    description: All instances of the node. What is not listed is stopped and removed.
    type: list
    elements: dict
    required: true
    suboptions:
      gateway: {description: "The gateway's id, C(ACCOUNT.PROXY).", type: str, required: true}
      account: {description: The account; Envoy's C(node.cluster)., type: str, required: true}
      node_id: {description: Envoy's C(node.id)., type: str, required: true}
      public_address: {description: The gateway's address., type: str, required: true}
      alt_address: {description: Its address of the other family if it has one., type: str, default: ""}
      inside_address: {description: The instance's own address to the tunnels., type: str, required: true}
      inside_address6: {description: The same for IPv6., type: str, required: true}
      interface: {description: Name of the interface on the host's side., type: str, required: true}
      mtu: {description: MTU within the namespace., type: int, required: true}
      envoy_version: {description: Which installed Envoy to run., type: str, required: true}
      concurrency: {description: Envoy's worker threads., type: int, default: 1}
      may_restart:
        description: Whether its Envoy may be stopped for a change. If not, one that runs is C(deferred).
        type: bool
        default: true
  keep:
    description:
      - Gateways of which it is not known what they are to be. What the node has of them is left as it is, and
        nothing is said of them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Run the instances of this node
  epic.gateway.gateway_instances:
    instances:
      - gateway: root.web
        account: root
        node_id: epic-root.web
        public_address: 203.0.113.7
        alt_address: "2001:db8::7"
        inside_address: 100.64.0.1
        inside_address6: fd65:7069:6300::6440:1
        interface: epg64400001b78a
        mtu: 1452
        envoy_version: 1.40.0
"""

RETURN = r"""
instances:
  description: What was done, or would be done in check mode, by gateway.
  returned: success
  type: list
  elements: dict
  contains:
    gateway: {description: The gateway's id., type: str}
    action:
      description: >-
        C(create), C(replace) (namespace too), C(update), C(start), C(remove), C(deferred) (it runs and
        differs from what is wanted, but may not be restarted) or C(none).
      type: str
    error: {description: What went wrong with it; empty if nothing did., type: str}
  sample: [{gateway: root.web, action: create, error: ""}]
envoy_versions:
  description: The versions of Envoy that the node has.
  returned: success
  type: list
  elements: str
  sample: [1.40.0]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._instance_run import SPEC, run_instances


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = run_instances(module.params, module.check_mode, module.run_command)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
