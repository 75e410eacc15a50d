#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Look at the gateways of an EPIC cluster
version_added: 0.1.0
description:
  - Tells where gateways run, in which phases their instances are, and which Envoy they run.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes.info
  - epic.gateway.api
options:
  account: {description: Only the gateways of this account; those of all if not given., type: str}
"""

EXAMPLES = r"""
- name: Wait until all gateways run the new Envoy
  epic.gateway.gateway_info:
    url: https://epic1:8443
    credential_file: /etc/epic/admin.yaml
    ca_file: /etc/epic/pki/ca.crt
  register: cluster
  until: >-
    cluster.gateways | map(attribute='instances') | flatten | rejectattr('envoy_version', 'eq', '1.40.0')
    | length == 0
  retries: 60
  delay: 5
  delegate_to: epic1
"""

RETURN = r"""
gateways:
  description: The gateways, by account and name.
  returned: success
  type: list
  elements: dict
  contains:
    account: {description: The account., type: str}
    name: {description: "The gateway's name, the UID of the client's object.", type: str}
    display_name: {description: The name that people know it by., type: str}
    public_address: {description: Its address., type: str}
    alt_address: {description: Its address of the other family; empty where it has one only., type: str}
    deleted: {description: Whether it is being deleted., type: bool}
    envoy_version:
      description: The Envoy version that its template asks for; empty when it takes the cluster's.
      type: str
    instances:
      description:
        - Its instances, each with C(node), C(phase) and C(envoy_version), the version that it runs.
        - Only administrators are told the node; to others it is empty.
      type: list
      elements: dict
    serving: {description: Whether all its instances serve., type: bool}
  sample:
    - account: shop
      name: 6f1c
      display_name: web
      public_address: 203.0.113.1
      alt_address: 2001:db8::1
      deleted: false
      envoy_version: ""
      instances: [{node: epic1, phase: Serving, envoy_version: 1.40.0}]
      serving: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._api import CONNECTION_SPEC, ApiError, connect
from ansible_collections.epic.gateway.plugins.module_utils._gateways import shown

SPEC = {**CONNECTION_SPEC, "account": {"type": "str"}}


def fetch(api, account):
    """The gateways of the account, or of all accounts."""
    accounts = [account] if account else [found["metadata"]["name"] for found in api.items("accounts")]
    gateways = []
    for name in accounts:
        templates = api.items("accounts", name, "groups")
        versions = {t["metadata"]["name"]: t["spec"].get("envoy-version") or "" for t in templates}
        gateways += [shown(proxy, versions) for proxy in api.items("accounts", name, "proxies")]
    return gateways


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        gateways = fetch(connect(module.params), module.params["account"])
    except (ApiError, OSError) as error:
        module.fail_json(msg=str(error))
    gateways.sort(key=lambda gateway: (gateway["account"], gateway["name"]))
    module.exit_json(changed=False, gateways=gateways)


if __name__ == "__main__":
    main()
