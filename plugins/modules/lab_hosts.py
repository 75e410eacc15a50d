#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_hosts
short_description: Boot, repair or remove the hosts of the lab
description:
  - Each host is a systemd-nspawn machine with its own network namespace, control group and disk in memory.
  - A host whose definition changed gets a new disk. A host that is down starts with the disk it had.
  - Needs root on the machine that carries the lab.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  name:
    description: The lab's name, one to six letters. It begins the names of all its namespaces and links.
    type: str
    default: lab
  state:
    description: Whether the lab is there.
    type: str
    choices: [present, absent]
    default: present
  topology:
    description: Hosts and links, as in C(inventories/lab/topology.yml). Needed unless it is absent.
    type: dict
  image:
    description: Directory of the base image. Needed unless it is absent.
    type: path
  layers:
    description: Directories of layers over the image, by host.
    type: dict
    default: {}
  ssh_directory:
    description: Where keys and the settings of the SSH client are kept.
    type: path
    required: true
  power_cycle:
    description: Hosts to start again although they run.
    type: list
    elements: str
    default: []
  files:
    description: Files that disks begin with.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The host.
        type: str
        required: true
      path:
        description: Absolute path on the host.
        type: str
        required: true
      content:
        description: The file's text.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Boot the lab
  epic.gateway.lab_hosts:
    topology: "{{ lookup('ansible.builtin.file', 'inventories/lab/topology.yml') | from_yaml }}"
    image: .cache/lab/image-0123456789abcdef
    ssh_directory: .cache/lab/ssh

- name: Cut the power of a host for a moment
  epic.gateway.lab_hosts:
    topology: "{{ lookup('ansible.builtin.file', 'inventories/lab/topology.yml') | from_yaml }}"
    image: .cache/lab/image-0123456789abcdef
    ssh_directory: .cache/lab/ssh
    power_cycle: [epic2]
"""

RETURN = r"""
steps:
  description: What was done about each host that was not as it should be.
  returned: when state is present
  type: dict
  sample: {epic2: start}
removed:
  description: What was removed.
  returned: when state is absent
  type: list
  elements: str
  sample: [host epic1, link lab-mgmt, /run/epic-lab]
"""

import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils import _lab_hosts as lab
from ansible_collections.epic.gateway.plugins.module_utils._lab_keys import make_keys, read_keys
from ansible_collections.epic.gateway.plugins.module_utils._lab_plan import (
    File,
    Names,
    describe,
    machines,
    steps,
)
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError
from ansible_collections.epic.gateway.plugins.module_utils._lab_topology import (
    TopologyError,
    read_topology,
)

SPEC = {
    "name": {"type": "str", "default": "lab"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "topology": {"type": "dict"},
    "image": {"type": "path"},
    "layers": {"type": "dict", "default": {}},
    "ssh_directory": {"type": "path", "required": True},
    "power_cycle": {"type": "list", "elements": "str", "default": []},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {key: {"type": "str", "required": True} for key in ("host", "path", "content")},
    },
}


def present(names, options, check_mode):
    """Boot what is down, build anew what is different; the result for Ansible."""
    topology = read_topology(options["topology"], names.lab)
    disks = {host.name: [options["layers"].get(host.name), options["image"]] for host in topology.hosts}
    disks = {host: [Path(layer) for layer in layers if layer] for host, layers in disks.items()}
    _known(topology, options["power_cycle"], "power_cycle")
    _known(topology, [file["host"] for file in options["files"]], "files")
    keys = (read_keys if check_mode else make_keys)(Path(options["ssh_directory"]), topology)
    wanted = machines(topology, disks, keys, _by_host(options["files"]))
    seen = lab.look(names, topology)
    todo = steps(wanted, seen, options["power_cycle"])
    if todo and not check_mode:
        lab.apply(names, topology, wanted, todo)
    return {
        "changed": bool(todo),
        "steps": {host: step.value for host, step in todo.items()},
        "diff": describe(wanted, seen, todo),
    }


def absent(names, options, check_mode):
    """Remove all there is; the result for Ansible."""
    directory = Path(options["ssh_directory"])
    found = lab.leftovers(names, directory)
    if found and not check_mode:
        lab.remove(names, directory)
    diff = {"before": "".join(f"{line}\n" for line in found), "after": ""}
    return {"changed": bool(found), "removed": found, "diff": diff}


def _known(topology, hosts, option):
    unknown = sorted(set(hosts) - {host.name for host in topology.hosts})
    if unknown:
        known = ", ".join(host.name for host in topology.hosts)
        raise TopologyError(f"{option}: there is no host {', '.join(unknown)}; hosts are {known}")


def _by_host(files):
    result = {}
    for file in files:
        result.setdefault(file["host"], []).append(File(file["path"], file["content"]))
    return result


def main():
    module = AnsibleModule(
        argument_spec=SPEC,
        required_if=[("state", "present", ("topology", "image"))],
        supports_check_mode=True,
    )
    options = module.params
    if os.geteuid() != 0:
        module.fail_json(msg="the lab makes namespaces and mounts: run this as root")
    if not re.fullmatch(r"[a-z]{1,6}", options["name"]):
        module.fail_json(msg=f"name: {options['name']!r} cannot name a lab; it is one to six letters a-z")
    action = present if options["state"] == "present" else absent
    try:
        with lab.exclusive(Path(options["ssh_directory"]).parent):
            module.exit_json(**action(Names(options["name"]), options, module.check_mode))
    except (LabError, TopologyError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
