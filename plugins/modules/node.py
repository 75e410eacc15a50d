#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Register an EPIC node, take it out of service and back, remove it
version_added: 0.1.0
description:
  - Creates, updates or deletes the node's object at the control plane.
  - EPIC places gateways on registered nodes only.
  - Options that are not given stay as the control plane has them.
  - A node that is removed drains first, and is forgotten when its agent has confirmed that nothing of EPIC is
    in force there. What EPIC installed on the host is removed by the role P(epic.gateway.decommission#role).
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
  - epic.gateway.api
options:
  name: {description: The node's name; its agent's certificate is for it., type: str, required: true}
  state: {description: Whether it is registered., type: str, choices: [present, absent], default: present}
  address: {description: Underlay address; the node's end of tunnels. Needed to register it., type: str}
  management_address: {description: Where runs reach the node by SSH., type: str}
  underlay_mtu: {description: MTU of the underlay., type: int}
  capacity: {description: How many instances the node may run., type: int}
  schedulable:
    description: Whether new instances may be placed on the node. V(false) cordons it.
    type: bool
  drain:
    description:
      - V(true) cordons the node and takes its instances out of service; connections get their time to end.
      - V(false) has them serve again.
    type: bool
  unheard_ok:
    description:
      - With O(drain=true), the node's instances leave service even if no router hears those that take their
        place; their gateways get no requests then until a router does. Otherwise the drain waits for that.
      - With O(drain=false) or O(schedulable=true), not waited for is that a router hears the node.
    type: bool
    default: false
  force:
    description:
      - The node is lost and will not confirm its removal. Its instances are dropped at once, its
        certificate is revoked.
      - A node that is only cut off from the control plane goes on with what it does; switch it off first.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until the node is as it was asked to be, that is, removed; drained; or, with
        O(drain=false) or O(schedulable=true), at work with all its instances.
      - A cordoned or merely registered node is not waited for.
    type: bool
    default: true
  wait_timeout:
    description: How many seconds to wait at most. What was begun goes on when they are over.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Register the node
  epic.gateway.node:
    url: https://epic1:8443
    credential_file: /etc/epic/admin.yaml
    ca_file: /etc/epic/pki/ca.crt
    name: "{{ inventory_hostname }}"
    address: 172.30.11.2
    underlay_mtu: 1500
  delegate_to: epic1

- name: Work on a node while others serve its gateways
  delegate_to: epic1
  module_defaults:
    group/epic.gateway.epic:
      url: https://epic1:8443
      credential_file: /etc/epic/admin.yaml
      ca_file: /etc/epic/pki/ca.crt
  block:
    - name: Drain it
      epic.gateway.node:
        name: epic2
        drain: true

    - name: Give it its work back
      epic.gateway.node:
        name: epic2
        schedulable: true
        drain: false

- name: Remove a node that burnt down
  epic.gateway.node:
    url: https://epic1:8443
    credential_file: /etc/epic/admin.yaml
    ca_file: /etc/epic/pki/ca.crt
    name: epic3
    state: absent
    force: true
"""

RETURN = r"""
spec:
  description: The node's specification as it is now, or would be.
  returned: success
  type: dict
  sample: {address: 172.30.11.2, underlay-mtu: 1500}
phase:
  description: >-
    C(Joining), C(Ready), C(Cordoned), C(Draining), C(Removing), or C(Gone) when there is no such node.
  returned: success
  type: str
  sample: Ready
instances:
  description: How many of its instances are in which phase.
  returned: success
  type: dict
  sample: {Serving: 12}
"""

import json
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._api import CONNECTION_SPEC, ApiError, connect
from ansible_collections.epic.gateway.plugins.module_utils._nodes import (
    NodeError,
    describe,
    instances,
    is_reached,
    phase,
    plan,
)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0

SPEC = {
    **CONNECTION_SPEC,
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "address": {"type": "str"},
    "management_address": {"type": "str"},
    "underlay_mtu": {"type": "int"},
    "capacity": {"type": "int"},
    "schedulable": {"type": "bool"},
    "drain": {"type": "bool"},
    "unheard_ok": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 600},
}


class TimedOut(Exception):
    """The node is not as it was asked to be within the time given."""


def look(api, name):
    """The node as the API has it, or None."""
    reply = api.get("nodes", name)
    return None if reply is None else reply["node"]


def carry_out(api, name, steps):
    """Send what the plan says."""
    if steps.action == "register":
        api.put({"node": {"spec": steps.body}}, "nodes", name)
    elif steps.action == "maintain":
        api.put({"maintenance": steps.body}, "nodes", name, "maintenance")
    elif steps.action in {"delete", "forget"}:
        api.delete("nodes", name, force=steps.action == "forget")


def wait_for(api, options):
    """The node, once it is as it was asked to be; a control plane that restarts meanwhile is asked again."""
    deadline = time.monotonic() + options["wait_timeout"]
    pause = FIRST_PAUSE
    while True:
        try:
            node = look(api, options["name"])
            if is_reached(options, node):
                return node
            last = describe(node)
        except ApiError as error:
            if error.status is not None and error.status < 500:
                raise
            last = str(error)
        if time.monotonic() >= deadline:
            seconds = options["wait_timeout"]
            raise TimedOut(
                f"node {options['name']} is not as asked for after {seconds} s; it goes on: {last}"
            )
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def reconcile(api, options, check_mode):
    """Look, plan, and unless in check mode carry out and wait; the plan, and the node as it is then."""
    node = look(api, options["name"])
    steps = plan(options, node)
    if check_mode:
        return steps, node
    carry_out(api, options["name"], steps)
    return steps, wait_for(api, options) if options["wait"] else look(api, options["name"])


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        steps, node = reconcile(connect(module.params), module.params, module.check_mode)
    except (ApiError, NodeError, TimedOut, OSError) as error:
        module.fail_json(msg=str(error))
    before, after = (
        json.dumps(spec, indent=2, sort_keys=True) + "\n" for spec in (steps.before, steps.after)
    )
    module.exit_json(
        changed=steps.changed,
        spec=steps.after,
        phase="Gone" if node is None else phase(node),
        instances={} if node is None else instances(node),
        diff={"before": before, "after": after},
    )


if __name__ == "__main__":
    main()
