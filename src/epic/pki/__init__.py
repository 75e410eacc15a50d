# SPDX-License-Identifier: Apache-2.0
"""The cluster's own certificate authority and the keys that its parts identify themselves with."""
