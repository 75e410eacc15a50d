# SPDX-License-Identifier: Apache-2.0
"""Every benchmark of the cluster, one after the other, on the lab as `make demo` leaves it."""

from __future__ import annotations

import first_request
import gateway_burst
import site_runs

if __name__ == "__main__":
    first_request.main()
    gateway_burst.main()
    site_runs.main()
