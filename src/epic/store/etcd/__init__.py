# SPDX-License-Identifier: Apache-2.0
"""The store in etcd 3, for several control hosts."""
