# SPDX-License-Identifier: Apache-2.0
"""Delta ADS: a server and a client of Envoy's discovery protocol, and the control plane's use of it."""
