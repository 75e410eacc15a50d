#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_image
short_description: Build the base image of the lab's hosts
description:
  - Makes a Debian tree with mmdebstrap, once, and keeps it under the hash of its recipe.
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
  customize:
    description: Text of a shell program that finishes the tree given as its argument.
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
"""

RETURN = r"""
path:
  description: The image's directory.
  returned: when state is present
  type: str
  sample: .cache/lab/image-0123456789abcdef
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._lab_hosts import exclusive
from ansible_collections.epic.gateway.plugins.module_utils._lab_image import build, image_path, recipe
from ansible_collections.epic.gateway.plugins.module_utils._lab_shell import LabError

SPEC = {
    "cache": {"type": "path", "required": True},
    "suite": {"type": "str", "default": "bookworm"},
    "packages": {"type": "list", "elements": "str"},
    "customize": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def present(options, check_mode):
    """Build the image if it is missing; the result for Ansible."""
    cache = Path(options["cache"])
    wanted = recipe(options["suite"], options["packages"], options["customize"])
    path = image_path(cache, wanted)
    missing = not path.is_dir()
    if missing and not check_mode:
        with exclusive(cache):
            build(cache, wanted)
    before = "" if missing else f"{path}\n"
    return {"changed": missing, "path": str(path), "diff": {"before": before, "after": f"{path}\n"}}


def absent(options, check_mode):
    """Remove all images and their log; the result for Ansible."""
    found = sorted(Path(options["cache"]).glob("image*"))
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
