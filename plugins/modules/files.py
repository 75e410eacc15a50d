#!/usr/bin/python
# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Write a set of directories and files in one step
version_added: 0.1.0
description:
  - Makes all directories, then all files that a role gives to a host, and removes what it gave once.
  - A module run costs far more than the writing of a file, so a role hands over its files together.
  - Nothing is written unless every V(validate) command accepts its new file.
  - A task that writes a secret needs C(no_log), or the diff and the host's journal show it.
author:
  - The EPIC developers (@epic-gateway)
extends_documentation_fragment:
  - epic.gateway.attributes
options:
  directories:
    description: Directories that must exist, parents first.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      mode: {description: Octal mode., type: str, default: "0755"}
      owner: {description: User; the module's own if not given., type: str}
      group: {description: Group; the module's own if not given., type: str}
  files:
    description: Files that must exist with just this content.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      content: {description: The whole text., type: str, required: true}
      mode: {description: Octal mode., type: str, default: "0644"}
      owner: {description: User; the module's own if not given., type: str}
      group: {description: Group; the module's own if not given., type: str}
      validate:
        description: >-
          Command that must accept the new file, C(%s) being its path, before anything is written.
          A check passes over a command that is not installed yet.
        type: str
  links:
    description: Symbolic links that must exist. They are made after the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      target: {description: Where it leads., type: str, required: true}
  absent:
    description: Paths that must not exist.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Write the agent's configuration
  epic.gateway.files:
    directories:
      - path: /etc/epic
    files:
      - path: /etc/epic/agent.yaml
        content: "{{ lookup('ansible.builtin.template', 'agent.yaml.j2') }}"
        mode: "0640"
        group: epic
    absent:
      - /etc/epic/agent.yml
"""

RETURN = r"""
changed_paths:
  description: Paths that were written, changed or removed, for handlers to look at.
  returned: always
  type: list
  elements: str
  sample: [/etc/epic/agent.yaml]
"""

import grp
import os
import pwd
import shlex
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.epic.gateway.plugins.module_utils._files import (
    Entry,
    Link,
    plan,
    read,
    read_link,
    remove,
    write,
    write_link,
)

_ATTRIBUTES = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
}
_DIRECTORY = {**_ATTRIBUTES, "mode": {"type": "str", "default": "0755"}}
_FILE = {
    **_ATTRIBUTES,
    "mode": {"type": "str", "default": "0644"},
    "content": {"type": "str", "required": True},
    "validate": {"type": "str"},
}
_LINK = {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}}
SPEC = {
    "directories": {"type": "list", "elements": "dict", "default": [], "options": _DIRECTORY},
    "files": {"type": "list", "elements": "dict", "default": [], "options": _FILE},
    "links": {"type": "list", "elements": "dict", "default": [], "options": _LINK},
    "absent": {"type": "list", "elements": "path", "default": []},
}


def wanted_entry(module, item):
    """The entry that an item of the options asks for; in check mode a user or group may be still to come."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        mode = int(item["mode"], 8)
        uid = pwd.getpwnam(item["owner"]).pw_uid if item["owner"] else uid
        gid = grp.getgrnam(item["group"]).gr_gid if item["group"] else gid
    except ValueError:
        module.fail_json(
            msg=f"{item['path']}: mode is {item['mode']!r}; it must be octal, for example '0644'"
        )
    except KeyError as error:
        if not module.check_mode:
            module.fail_json(msg=f"{item['path']}: {error.args[0]}")
    return Entry(item["path"], mode, uid, gid, item.get("content"))


def validate(module, change, command):
    """Fail unless the command accepts the new content."""
    words = shlex.split(command)
    if module.check_mode and module.get_bin_path(words[0]) is None:
        return
    handle, part = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(change.wanted.content)
    code, out, err = module.run_command([word.replace("%s", part) for word in words])
    Path(part).unlink()
    if code:
        module.fail_json(
            msg=f"{change.wanted.path} was not written, for `{command}` refuses it: {(err or out).strip()}"
        )


def carry_out(module, changes, links, surplus):
    """Write the changes and links and remove what must not be."""
    try:
        for change in changes:
            write(change)
        for link in links:
            write_link(link)
        for path in surplus:
            remove(path)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    items = module.params["directories"] + module.params["files"]
    checks = {item["path"]: item["validate"] for item in module.params["files"] if item["validate"]}
    wanted = [wanted_entry(module, item) for item in items]
    found = {entry.path: entry for entry in (read(item["path"]) for item in items) if entry}
    changes = plan(wanted, found)
    links = [read_link(Link(item["path"], item["target"])) for item in module.params["links"]]
    links = [link for link in links if link.found != link.target]
    surplus = [path for path in module.params["absent"] if os.path.lexists(path)]
    for change in changes:
        if change.content and change.wanted.path in checks:
            validate(module, change, checks[change.wanted.path])
    if not module.check_mode:
        carry_out(module, changes, links, surplus)
    diff = [change.diff() for change in [*changes, *links]]
    diff += [
        {"before_header": path, "after_header": path, "before": "present\n", "after": ""} for path in surplus
    ]
    paths = [change.wanted.path for change in changes] + [link.path for link in links] + surplus
    module.exit_json(changed=bool(paths), changed_paths=paths, diff=diff)


if __name__ == "__main__":
    main()
