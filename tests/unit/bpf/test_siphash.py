# SPDX-License-Identifier: Apache-2.0
"""SipHash against the reference implementation's vectors."""

from __future__ import annotations

import pytest

from epic.bpf.packets.siphash import siphash24

KEY = bytes(range(16))
# Of the messages 00, 00 01, ... of these lengths.
VECTORS = {
    0: "310e0edd47db6f72",
    1: "fd67dc93c539f874",
    2: "5a4fa9d909806c0d",
    3: "2d7efbd796666785",
    4: "b7877127e09427cf",
    5: "8da699cd64557618",
    6: "cee3fe586e46c9cb",
    7: "37d1018bf50002ab",
    8: "6224939a79f5f593",
    9: "b0e4a90bdf82009e",
    15: "e545be4961ca29a1",
}


@pytest.mark.parametrize(("length", "expected"), VECTORS.items(), ids=[f"{n} bytes" for n in VECTORS])
def test_the_reference_vectors(length: int, expected: str) -> None:
    assert siphash24(KEY, bytes(range(length))).hex() == expected


def test_a_key_has_sixteen_bytes() -> None:
    with pytest.raises(ValueError, match="has 16 bytes, this one has 15"):
        siphash24(bytes(15), b"")
