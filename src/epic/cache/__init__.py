# SPDX-License-Identifier: Apache-2.0
"""Objects in memory as the store has them, indexed, for reconcilers, ADS and the API to read from.

Everything that is read is an immutable snapshot of one revision of the store; a change costs what it
touches, whatever there is besides it. `views` and `sorted_map` are pure; `feed` keeps a cache at the async
store's newest revision and tells which objects have changed: it is what the reconcilers over that store,
the translation and ADS stand on.
"""
