# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs gateway_instances as a module, or through the forced command of the runs' key.

The control plane's runs set `epic_forced_command`: their key opens no shell, so nothing can be copied to the
node. The options go to the command's standard input; what it answers is the module's result.
"""

from __future__ import annotations

import json

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.epic.gateway.plugins.module_utils._instance_command import COMMAND
from ansible_collections.epic.gateway.plugins.module_utils._instance_run import SPEC

_NOT_FOUND = 127


class ActionModule(ActionBase):
    """The action of the module's name."""

    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        """See `ActionBase`."""
        result = super().run(tmp, task_vars)
        if self._is_forced(task_vars or {}):
            result.update(self._command())
        else:
            name = "epic.gateway.gateway_instances"
            result.update(self._execute_module(module_name=name, task_vars=task_vars))
        return result

    def _is_forced(self, task_vars):
        return boolean(self._templar.template(task_vars.get("epic_forced_command", False)))

    def _command(self):
        _validated, options = self.validate_argument_spec(argument_spec=SPEC)
        request = {**_lean(options), "check_mode": self._task.check_mode, "diff": self._task.diff}
        # without sudoable there is no terminal, and standard input is the request alone
        code, out, err = self._connection.exec_command(
            COMMAND, in_data=json.dumps(request).encode(), sudoable=False
        )
        return _reply(code, out, err)


def _lean(options):
    """Without what mostly there is none of: nodes of any version take the rest."""
    instances = [
        {name: value for name, value in instance.items() if name != "alt_address" or value}
        for instance in options["instances"]
    ]
    kept = {"keep": options["keep"]} if options["keep"] else {}
    return {"instances": instances, **kept}


def _reply(code, out, err):
    """The answer, or an error that says what came instead."""
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and ("changed" in answer or answer.get("failed")):
        return answer
    if code == _NOT_FOUND:
        raise AnsibleError(f"the node has no {COMMAND}. Run site.yml for it.")
    words = " ".join(err.decode(errors="replace").split()) or "nothing"
    raise AnsibleError(f"{COMMAND} on the node gave no answer (exit status {code}); it said: {words[-500:]}")
