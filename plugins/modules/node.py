#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Register an EPIC node at the control plane
version_added: 0.1.0
description:
  - Creates, updates or deletes the node's object. EPIC places gateways on registered nodes only.
  - Options that are not given stay as the control plane has them.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
  - epic.gateway.api
options:
  name: {description: The node's name; its agent's certificate is for it., type: str, required: true}
  state: {description: Whether it is registered., type: str, choices: [present, absent], default: present}
  address: {description: Underlay address; the node's end of tunnels. Needed if present., type: str}
  management_address: {description: Where runs reach the node by SSH., type: str}
  underlay_mtu: {description: MTU of the underlay., type: int}
  capacity: {description: How many instances the node may run., type: int}
  schedulable: {description: Whether new instances may be placed on the node., type: bool}
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
"""

RETURN = r"""
spec:
  description: The node's specification as it is now, or would be.
  returned: success
  type: dict
  sample: {address: 172.30.11.2, underlay-mtu: 1500}
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._api import (
    CONNECTION_SPEC,
    Api,
    ApiError,
    parse_credential,
)
from ansible_collections.epic.gateway.plugins.module_utils._nodes import plan, wanted_spec

SPEC = {
    **CONNECTION_SPEC,
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "address": {"type": "str"},
    "management_address": {"type": "str"},
    "underlay_mtu": {"type": "int"},
    "capacity": {"type": "int"},
    "schedulable": {"type": "bool"},
}


def connect(options):
    """The API, with the credential that the host keeps."""
    text = Path(options["credential_file"]).read_text("utf-8")
    credential = parse_credential(text, options["credential_file"])
    return Api(options["url"], credential, options["ca_file"], options["wait"])


def reconcile(api, options, check_mode):
    """Look, plan, and unless in check mode carry out."""
    reply = api.get("nodes", options["name"])
    steps = plan(options["state"], wanted_spec(options), None if reply is None else reply["node"])
    if steps.action == "put" and not check_mode:
        api.put({"node": {"spec": steps.after}}, "nodes", options["name"])
    if steps.action == "delete" and not check_mode:
        api.delete("nodes", options["name"])
    return steps


def main():
    module = AnsibleModule(
        argument_spec=SPEC, required_if=[("state", "present", ("address",))], supports_check_mode=True
    )
    try:
        steps = reconcile(connect(module.params), module.params, module.check_mode)
    except (ApiError, OSError) as error:
        module.fail_json(msg=str(error))
    before, after = (
        json.dumps(spec, indent=2, sort_keys=True) + "\n" for spec in (steps.before, steps.after)
    )
    module.exit_json(changed=steps.changed, spec=steps.after, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
