#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_cleanup
short_description: Remove everything of EPIC from a host
version_added: 0.1.0
description:
  - Ends EPIC's units, and removes network namespaces, links, routes, firewall, tunnel programs, files, users
    and keys that EPIC's roles and its agent gave the host, whichever of them it had.
  - Gateways are withdrawn before what serves them ends, but the control plane is told nothing. A node should
    have been removed from the cluster before.
  - Packages of the distribution stay, and kernel settings keep their values until the next start of the host.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  key_files:
    description: Files with authorized keys that the key of the control plane's runs is removed from.
    type: list
    elements: path
    default: [/root/.ssh/authorized_keys]
"""

EXAMPLES = r"""
- name: Leave nothing of EPIC on the host
  epic.gateway.host_cleanup:
"""

RETURN = r"""
removed:
  description: What was removed, or would be.
  returned: success
  type: list
  elements: str
  sample: [unit epic-agent.service, nftables table inet epic, /etc/epic]
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._host_cleanup import (
    CleanupError,
    Host,
    find,
    remove,
)

SPEC = {
    "key_files": {
        "type": "list",
        "elements": "path",
        "default": ["/root/.ssh/authorized_keys"],
        # names of files, and public keys in them
        "no_log": False,
    }
}


def runner(module):
    """Runs programs of the host, wherever its administrators' are."""

    def run(command):
        program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
        if program is None:
            return 127, "", f"{command[0]} is not installed"
        return module.run_command([program, *command[1:]])

    return run


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    host = Host(runner(module), Path("/"), tuple(module.params["key_files"]))
    remains = find(host)
    lines = remains.lines()
    if lines and not module.check_mode:
        try:
            for odd in remove(host, remains):
                module.warn(odd)
        except (CleanupError, OSError) as error:
            module.fail_json(msg=str(error))
    before = "".join(f"{line}\n" for line in lines)
    module.exit_json(changed=bool(lines), removed=lines, diff={"before": before, "after": ""})


if __name__ == "__main__":
    main()
