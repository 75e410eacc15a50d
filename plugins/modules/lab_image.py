#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_image
short_description: Build the base image of the lab's hosts
version_added: 0.1.0
description:
  - Makes a Debian tree with mmdebstrap, once, and keeps it under the hash of its recipe.
  - Needs root, mmdebstrap and a Debian archive; nothing of these once the image is there.
author:
  - The EPIC developers
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  cache: {description: Directory that keeps images., type: path, required: true}
  suite: {description: The Debian release., type: str, default: bookworm}
  packages: {description: Packages on top of a minimal system., type: list, elements: str, required: true}
  customize: {description: Text of a shell program that finishes the tree given as its argument., type: str, default: ""}
  state: {description: Whether there is an image; C(absent) removes all of them., type: str, choices: [present, absent], default: present}
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
from ansible_collections.epic.gateway.plugins.module_utils._lab_image import ImageError, build, image_path, recipe

SPEC = {
    "cache": {"type": "path", "required": True},
    "suite": {"type": "str", "default": "bookworm"},
    "packages": {"type": "list", "elements": "str", "required": True},
    "customize": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def reconcile(options, check_mode):
    """Build or remove; the result for Ansible."""
    cache = Path(options["cache"])
    if options["state"] == "absent":
        images = sorted(cache.glob("image*"))
        if images and not check_mode:
            for image in images:
                shutil.rmtree(image) if image.is_dir() else image.unlink()
        return {"changed": bool(images), "diff": {"before": "".join(f"{image}\n" for image in images), "after": ""}}
    wanted = recipe(options["suite"], options["packages"], options["customize"])
    path = image_path(cache, wanted)
    missing = not path.is_dir()
    if missing and not check_mode:
        with exclusive(cache):
            build(cache, wanted)
    return {"changed": missing, "path": str(path), "diff": {"before": "" if missing else f"{path}\n", "after": f"{path}\n"}}


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        module.exit_json(**reconcile(module.params, module.check_mode))
    except (ImageError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
