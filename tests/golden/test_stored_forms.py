# SPDX-License-Identifier: Apache-2.0
"""How each kind is stored: `stored-forms/KIND-FORM.json`, an object with something in every field.

The file of a kind's newest form is what is written now: `--update` writes it. Whoever changes it so that what
was written before cannot be read gives the form the next number and a conversion, and keeps the older file,
which has to be read for ever.

`stored-values/KIND-FORM.json` has what programs of a form insist on when they read it: the fields that must
be there, and the words that may be in those that take no others. It is written once for a form and stays: an
object with another word is one that they cannot read, so a new word needs a new form, or a field of its own,
which they pass over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kind_samples import sample

from epic.kinds.kind import Kind
from epic.kinds.registry import KINDS
from epic.store.kinds import read_of, schema_of, write_of
from epic.store.objects import Stored
from epic.store.schema import Schema, StoredKind

FORMS = Path(__file__).parent / "stored-forms"
VALUES = Path(__file__).parent / "stored-values"


def each_form() -> list[Any]:
    return [
        pytest.param(kind, form, id=f"{kind.name}-{form}")
        for kind in KINDS
        for form in range(1, kind.form + 1)
        if form == kind.form or form in kind.conversions
    ]


@pytest.mark.parametrize(("kind", "form"), each_form())
def test_a_stored_form_is_read(kind: Kind[Any], form: int, request: pytest.FixtureRequest) -> None:
    file = FORMS / f"{kind.name}-{form}.json"
    obj = sample(kind)
    written = write_of(kind, obj)
    if form == kind.form:
        text = json.dumps(json.loads(written.body), indent=1) + "\n"
        if request.config.getoption("--update"):
            file.write_text(text)
        assert file.read_text() == text
    older = Schema([StoredKind(kind.name, form)])
    envelope = schema_of(KINDS).decode(
        kind.name, older.encode(kind.name, written.labels, file.read_bytes().replace(b"\n", b""))
    )
    found = read_of(kind, Stored(written.key, 7, envelope.body, envelope.labels, envelope.form))
    assert found == obj.at(7)


def test_each_file_is_a_form_that_is_read() -> None:
    known = {f"{param.id}.json" for param in each_form()}
    assert {file.name for file in FORMS.iterdir()} == known


def words(schema: Any) -> set[Any]:
    """The words that a field takes, if it takes no others."""
    if isinstance(schema, list):
        return set[Any]().union(*map(words, schema))
    if not isinstance(schema, dict):
        return set()
    own = {*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])}
    return own.union(*(words(value) for key, value in schema.items() if key not in {"enum", "default"}))


def insisted_on(kind: Kind[Any]) -> dict[str, Any]:
    """By class: the fields that must be there, and the words of fields that take no others."""
    whole = kind.model.model_json_schema(by_alias=True)
    found = {}
    for name, schema in {kind.name: whole, **whole["$defs"]}.items():
        fields = {field: sorted(words(of)) for field, of in schema.get("properties", {}).items()}
        taken = {field: said for field, said in sorted(fields.items()) if said}
        found[name] = {"required": sorted(schema.get("required", ())), "words": taken}
    return found


@pytest.mark.parametrize("kind", list(KINDS), ids=[kind.name for kind in KINDS])
def test_what_programs_of_a_form_insist_on_stays(kind: Kind[Any], request: pytest.FixtureRequest) -> None:
    file = VALUES / f"{kind.name}-{kind.form}.json"
    text = json.dumps(insisted_on(kind), indent=1) + "\n"
    if request.config.getoption("--update") and not file.exists():
        file.write_text(text)
    assert file.read_text() == text, "programs of this form cannot read that: give it a new form"
