"""Bytes to documents: what is read, how, and where it stands."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.source import documents
from reconciler.source.documents import ParseError, parse


def values(text: str) -> list[Any]:
    return [document.value for document in parse(text.encode())]


def fault(data: bytes, *, is_json: bool = False) -> str:
    with pytest.raises(ParseError) as raised:
        parse(data, is_json=is_json)
    return "{}:{}: {}".format(*raised.value.finding)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("OFF", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("[]", []),
        ("'80'", "80"),
        ("80", 80),
        ("-5", -5),
        ("0x10", 16),
        ("010", 8),
        ("08", 8.0),
        ("1_000", 1000),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("!!str 80", "80"),
        ("! 80", "80"),
        ("!!int 80", 80),
        ("<<", "<<"),
    ],
)
def test_a_scalar_is_read_as_kubernetes_reads_it(text: str, value: Any) -> None:
    assert values(f"key: {text}") == [{"key": value}]


def test_null_and_an_empty_list_are_kept_apart() -> None:
    assert values("from:\nto: []\n") == [{"from": None, "to": []}]


def test_empty_documents_are_left_out() -> None:
    assert values("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_a_byte_order_mark_is_no_content() -> None:
    assert values("\ufeffa: 1") == [{"a": 1}]


def test_an_alias_stands_for_its_anchor() -> None:
    assert values("a: &x {b: [1, 2]}\nc: *x\n") == [{"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}]


def test_a_merge_keeps_explicit_keys_and_earlier_sources() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 0\n"
    assert values(text)[0]["c"] == {"x": 0, "y": 1, "z": 2}


def test_an_anchor_ends_with_its_document() -> None:
    assert fault(b"a: &x 1\n---\nb: *x\n") == ("3:4: the alias *x has no anchor &x before it in this document")


def test_json_may_be_indented_with_tabs() -> None:
    [document] = parse(b'{"a":\t[1,\n\t\t{"b": null}]}', is_json=True)
    assert document.value == {"a": [1, {"b": None}]}
    assert document.items("a")[1].place == (2, 3)


def test_every_value_knows_its_place() -> None:
    [document] = parse(b"a:\n  b: [x, {c: 1}]\n")
    node = document.items("a", "b")[1]
    assert (node.place, node.key_place("c"), node.place_of("c")) == ((2, 10), (2, 11), (2, 14))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yes: 1", '1:1: the key yes reads as a boolean: quote it: "yes"'),
        ("80: 1", '1:1: the key 80 reads as a number: quote it: "80"'),
        ("[1]: 2", "1:1: a key must be a string, not a list"),
        ("a: 99999999999999999999", "1:4: 99999999999999999999 is too big a number"),
        ("a: .inf", "1:4: .inf is not a number that a manifest can hold"),
        ("a: 1e999", "1:4: 1e999 is too big a number"),
        ("a: !!int x", '1:4: "x" is not what its tag !!int says'),
        ("a: !!binary aGk=", "1:4: the tag !!binary is not allowed in a manifest"),
        ("a: {<<: 3}", "1:9: << merges mappings, and this is a number"),
        (
            "a: 'x",
            "1:6: YAML syntax: found unexpected end of stream, while scanning a quoted scalar that begins at line 1",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, message: str) -> None:
    assert fault(text.encode()) == message


def test_a_character_that_yaml_does_not_allow_is_named() -> None:
    assert fault(b"a: b\nc: \x01").startswith(
        "2:4: a character that YAML does not allow: unacceptable character #x0001"
    )


def test_a_file_over_the_size_limit_is_not_parsed() -> None:
    data = b"a: " + b"x" * documents.MAX_BYTES
    assert fault(data) == f"0:0: the file has {len(data)} bytes, the limit is {documents.MAX_BYTES}: split it"


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? "])
def test_a_hundred_thousand_levels_are_refused_without_recursion(opening: str) -> None:
    assert fault((opening * 100_000).encode()).endswith(f"nested deeper than {documents.MAX_DEPTH} levels")


def test_json_nested_too_deep_is_refused() -> None:
    assert fault(b"[" * 100_000 + b"]" * 100_000, is_json=True).endswith("nested deeper than 64 levels")


def test_too_many_values_are_refused() -> None:
    assert "more than 100000 values" in fault(b"[" + b"1," * (documents.MAX_VALUES + 1) + b"]")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400) | st.text("ab: -[]{}&*!'\"\n<|>#%@,0", max_size=120).map(str.encode))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for is_json in (False, True):
        with contextlib.suppress(ParseError):
            parse(data, is_json=is_json)
