#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: See whether a host is fit for EPIC
version_added: 0.1.0
description:
  - Looks at the distribution, Python, kernel, interfaces, ports and disks of a host, and changes nothing.
  - Reports all that is wrong at once and does not fail itself. What is not asked for is not looked at.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  distributions:
    description: Versions of distributions that will do, by C(ID) of os-release.
    type: dict
    default: {}
  python:
    description: Path of the interpreter for EPIC's programs.
    type: path
    default: /usr/bin/python3
  python_version:
    description: What the interpreter must be, for example C(3.11 x86_64).
    type: str
    default: ""
  kernel:
    description: The oldest kernel that will do, for example C(5.15).
    type: str
    default: ""
  tunnels:
    description: Whether the kernel must carry tunnels (BPF with its file system and types, cgroup v2, IPv6).
    type: bool
    default: false
  interfaces:
    description: Interfaces that there must be, with their smallest MTU.
    type: dict
    default: {}
  ports:
    description: Ports that nothing else may have.
    type: list
    elements: dict
    default: []
    suboptions:
      protocol: {description: Protocol., type: str, choices: [tcp, udp], required: true}
      number: {description: Number., type: int, required: true}
      unit: {description: Unit that may have it., type: str, required: true}
  space:
    description: MiB that must be free, by directory.
    type: dict
    default: {}
  asked_at:
    description: The asker's time, in seconds since 1970; returned as it is, to compare with RV(now).
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Look at the host
  epic.gateway.preflight:
    distributions: {debian: ["12"]}
    kernel: "5.15"
    tunnels: true
    interfaces: {ens192: 1500}
    ports:
      - {protocol: udp, number: 6080, unit: epic-agent.service}
  register: preflight
"""

RETURN = r"""
faults:
  description: What is wrong, each with what would be right.
  returned: always
  type: list
  elements: str
  sample: [the kernel is 4.19.0; it must be 5.15 or newer]
asked_at:
  description: The option.
  returned: always
  type: float
now:
  description: The host's time, in seconds since 1970.
  returned: always
  type: float
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._preflight import (
    Port,
    Wanted,
    faults,
    interface_mtus,
    read_facts,
    run_program,
    version,
)

_PORT = {
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "required": True},
    "number": {"type": "int", "required": True},
    "unit": {"type": "str", "required": True},
}
SPEC = {
    "distributions": {"type": "dict", "default": {}},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "python_version": {"type": "str", "default": ""},
    "kernel": {"type": "str", "default": ""},
    "tunnels": {"type": "bool", "default": False},
    "interfaces": {"type": "dict", "default": {}},
    "ports": {"type": "list", "elements": "dict", "default": [], "options": _PORT},
    "space": {"type": "dict", "default": {}},
    "asked_at": {"type": "float", "default": 0},
}


def main():
    now = time.time()
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    options = module.params
    wanted = Wanted(
        distributions=options["distributions"],
        python=options["python"],
        python_version=options["python_version"],
        kernel=version(options["kernel"]),
        tunnels=options["tunnels"],
        interfaces={name: int(mtu) for name, mtu in options["interfaces"].items()},
        ports=tuple(Port(**port) for port in options["ports"]),
        space={directory: int(needed) for directory, needed in options["space"].items()},
    )
    found = faults(wanted, read_facts(wanted, run_program, interface_mtus()))
    module.exit_json(changed=False, faults=found, asked_at=options["asked_at"], now=now)


if __name__ == "__main__":
    main()
