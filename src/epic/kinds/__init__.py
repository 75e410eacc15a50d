# SPDX-License-Identifier: Apache-2.0
"""The registry of kinds: what every part of EPIC that treats objects of all kinds alike needs to know of one.

`model` has the fields of kinds; here is what is true of a kind as a whole: its names and scope, who writes
it, how it is stored, by what it is found, what a client may set and within which limits. Store, cache, API
and epicctl derive their tables from it. No I/O.
"""
