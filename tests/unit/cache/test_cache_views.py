# SPDX-License-Identifier: Apache-2.0
"""Views: objects by name and by index, as they were; what cannot be read is not gone."""

from __future__ import annotations

from epic.cache.draft import Draft
from epic.cache.views import CachedKind, Delta, Entry, Fault, KindView, Snapshot

ROUTES: CachedKind[list[str]] = CachedKind(
    "Route", {"gateway": lambda gateways: gateways, "length": lambda gateways: [(str(len(gateways)), "n")]}
)


def entry(account: str, name: str, *gateways: str, revision: int = 1) -> Entry[list[str]]:
    return Entry(account, name, revision, list(gateways))


def routes() -> KindView[list[str]]:
    items = [entry("b", "r", "g"), entry("a", "s", "g", "h"), entry("a", "r", "h", "h")]
    view = KindView.empty(ROUTES)
    for item in (*items, Fault("a", "t", 5, "no JSON")):
        view = view.changed(item.account, item.name, item)
    return view


def test_objects_are_found_by_name_account_and_index_in_their_order() -> None:
    view = routes()
    assert view.get("a", "s") == ["g", "h"]
    assert view.get("a", "x") is None
    assert list(view.list()) == [["h", "h"], ["g", "h"], ["g"]]
    assert list(view.list("a")) == [["h", "h"], ["g", "h"]]
    assert list(view.by("gateway", "g")) == [["g", "h"], ["g"]]
    assert list(view.by("length", ("2", "n"))) == [["h", "h"], ["g", "h"]]
    assert list(view.by("gateway", "x")) == []


def test_change_moves_an_object_in_indexes_and_leaves_older_views_alone() -> None:
    before = routes()
    after = before.changed("a", "s", entry("a", "s", "i", revision=2))
    assert list(after.by("gateway", "i")) == [["i"]]
    assert list(after.by("gateway", "g")) == [["g"]]
    assert list(before.by("gateway", "g")) == [["g", "h"], ["g"]]
    gone = after.changed("a", "s", None)
    assert (len(gone), gone.get("a", "s"), list(gone.by("gateway", "i"))) == (2, None, [])
    assert after.revision("a", "s") == 2


def test_what_cannot_be_read_is_a_fault_until_it_can() -> None:
    view = routes()
    fault = view.fault("a", "t")
    assert fault is not None and fault.reason == "no JSON"
    assert (view.get("a", "t"), view.revision("a", "t")) == (None, 5)
    broken = view.changed("b", "r", Fault("b", "r", 6, "bad"))
    assert broken.get("b", "r") is None
    assert [(f.account, f.name) for f in broken.faults()] == [("a", "t"), ("b", "r")]
    assert set(broken.keys()) == {("a", "r"), ("a", "s"), ("a", "t"), ("b", "r")}
    healed = broken.changed("b", "r", entry("b", "r", "g", revision=7)).changed("a", "t", None)
    assert list(healed.faults()) == []
    assert healed.get("b", "r") == ["g"]


def test_draft_tells_what_differs_from_first_to_last() -> None:
    draft = Draft(Snapshot.empty([ROUTES]))
    draft.put("Route", "a", "r", entry("a", "r", "g"))
    draft.put("Route", "a", "t", Fault("a", "t", 1, "bad"))
    draft.put("Route", "a", "r", entry("a", "r", "h"))
    draft.put("Route", "a", "s", entry("a", "s", "i"))
    draft.reach(9)
    assert draft.snapshot.revision == 9
    assert draft.take_deltas() == [
        Delta("Route", "a", "r", None, ["h"]),
        Delta("Route", "a", "t", None, None),
        Delta("Route", "a", "s", None, ["i"]),
    ]
    draft.put("Route", "a", "r", entry("a", "r", "x"))
    draft.put("Route", "a", "r", None)
    assert draft.take_deltas() == [Delta("Route", "a", "r", ["h"], None)]
    assert draft.take_deltas() == []
    assert list(draft.snapshot.of(ROUTES).list()) == [["i"]]
