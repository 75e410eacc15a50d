# Copyright: the EPIC developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module reaches the REST API."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of module_utils/_api.py."""

    DOCUMENTATION = r"""
options:
  url:
    description: Where the API listens, for example C(https://epic1:8443).
    type: str
    required: true
  credential_file:
    description:
      - File on the host where the module runs, with the lines C(username:) and C(password:).
      - On the control host C(/etc/epic/admin.yaml); elsewhere the configuration of C(epicctl) will do.
    type: path
    required: true
  ca_file:
    description: Certificate of the cluster's authority, to verify the server with.
    type: path
    required: true
  api_timeout:
    description: How many seconds to wait for an API that does not answer yet.
    type: int
    default: 30
attributes:
  action_group:
    description: Use C(group/epic.gateway.epic) in C(module_defaults) to say once how modules reach the API.
    support: full
    membership: [epic.gateway.epic]
"""
