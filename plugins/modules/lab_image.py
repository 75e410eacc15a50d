#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_image
short_description: Build the base image of the lab's hosts, and the layers of packages that some have over it
description:
  - Makes a Debian tree with mmdebstrap, once, and keeps it under the hash of its recipe.
  - The image has a repository of further packages in C(/srv/debian), the only one that hosts know.
  - Needs root, mmdebstrap and a Debian archive; nothing of these once the image is there.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  cache:
    description: Directory that keeps images.
    type: path
    required: true
  suite:
    description: The Debian release.
    type: str
    default: bookworm
  packages:
    description: Packages on top of a minimal system. Needed unless it is absent.
    type: list
    elements: str
  offered:
    description: Packages that hosts can install; the repository has them with all they depend on.
    type: list
    elements: str
    default: []
  customize:
    description: Text of a shell program that finishes the tree in its first argument; O(offered) follows.
    type: str
    default: ""
  layers:
    description: Packages that hosts have already, by host. Hosts with the same packages share a layer.
    type: dict
    default: {}
  install:
    description: >-
      Text of a shell program that installs packages into a layer; its arguments are the image, the layer,
      a scratch directory and the packages.
    type: str
    default: ""
  state:
    description: Whether there is an image. C(absent) removes all of them.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Build the base image
  epic.gateway.lab_image:
    cache: .cache/lab
    packages: [systemd, systemd-sysv, openssh-server, python3]
    offered: [bird2, nftables]
    customize: "{{ lookup('ansible.builtin.file', 'image.sh') }}"
"""

RETURN = r"""
path:
  description: The image's directory.
  returned: when state is present
  type: str
  sample: .cache/lab/image-0123456789abcdef
layers:
  description: The layers' directories by host.
  returned: when state is present
  type: dict
  sample: {router: .cache/lab/layer-0123456789abcdef}
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._lab_hosts import exclusive
from ansible_collections.epic.gateway.plugins.module_utils._lab_image import (
    Layer,
    build,
    build_layer,
    image_path,
    layer_path,
    recipe,
)
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError

SPEC = {
    "cache": {"type": "path", "required": True},
    "suite": {"type": "str", "default": "bookworm"},
    "packages": {"type": "list", "elements": "str"},
    "offered": {"type": "list", "elements": "str", "default": []},
    "customize": {"type": "str", "default": ""},
    "layers": {"type": "dict", "default": {}},
    "install": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def present(options, check_mode):
    """Build what is missing; the result for Ansible."""
    cache = Path(options["cache"])
    wanted = recipe(options["suite"], options["packages"], options["offered"], options["customize"])
    path = image_path(cache, wanted)
    layers = {
        host: Layer(path.name, tuple(sorted(set(packages))), options["install"])
        for host, packages in options["layers"].items()
    }
    places = {host: layer_path(cache, layer) for host, layer in layers.items()}
    missing = sorted({place for place in (path, *places.values()) if not place.is_dir()})
    if missing and not check_mode:
        with exclusive(cache):
            build(cache, wanted)
            for layer in layers.values():
                build_layer(cache, layer)
    diff = {"before": "", "after": "".join(f"{place}\n" for place in missing)}
    found = {host: str(place) for host, place in places.items()}
    return {"changed": bool(missing), "path": str(path), "layers": found, "diff": diff}


def absent(options, check_mode):
    """Remove all images and layers and their log; the result for Ansible."""
    cache = Path(options["cache"])
    found = sorted([*cache.glob("image*"), *cache.glob("layer*")])
    for path in () if check_mode else found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"changed": bool(found), "diff": {"before": "".join(f"{path}\n" for path in found), "after": ""}}


def main():
    module = AnsibleModule(
        argument_spec=SPEC, required_if=[("state", "present", ("packages",))], supports_check_mode=True
    )
    action = present if module.params["state"] == "present" else absent
    try:
        module.exit_json(**action(module.params, module.check_mode))
    except (LabError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
