"""The filter language of `plumb monitor --kernel`: text to a checked tree, or an error that points at the column.

    filter      event [ `where` or ]
    or          and { `or` and }
    and         not { `and` not }
    not         `not` not | `(` or `)` | comparison
    comparison  field ( `==` | `!=` | `<` | `<=` | `>` | `>=` ) value
              | field [ `not` ] `in` ( value | `(` value { `,` value } `)` )

A value is read as its field's kind says. The tree holds numbers and networks only: nothing that the operator wrote
reaches the compiler.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.errors import UsageError
from reconciler.observe.kernel_events import Event, Field, Kind
from reconciler.observe.kernel_values import Value, allowed, is_single, read

LONGEST = 4096  # characters
DEEPEST = 32  # parentheses and `not`s inside each other
MOST_VALUES = 128  # what the verifier is asked to follow

_TOKEN = re.compile(r'\s*(?:(==|!=|<=|>=|<|>|\(|\)|,)|"([^"]*)"|([A-Za-z0-9_.:/\-]+)|(\S))')
_QUOTED, _STRAY = 2, 4  # groups of it
_ORDERED = ("<", "<=", ">", ">=")
_COMPARISONS = ("==", "!=", *_ORDERED)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operator` is one of == != < <= > >=, or `in`: any of the values. The others have one value."""

    field: Field
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    node: Node


@dataclass(frozen=True, slots=True)
class All:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Any:
    nodes: tuple[Node, ...]


Node = Comparison | Not | All | Any


@dataclass(frozen=True, slots=True)
class Filter:
    """`where` is None: every such event."""

    event: Event
    where: Node | None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    column: int  # from 1
    quoted: bool = False


def parse(text: str, events: Mapping[str, Event]) -> Filter:
    """Raises UsageError: where, what is wrong, and what would be allowed there."""
    return _Parser(text, events).filter()


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, text: str, events: Mapping[str, Event]) -> None:
        self._text = text
        self._events = events
        if len(text) > LONGEST:
            raise UsageError(f"the kernel filter has {len(text)} characters; {LONGEST} are allowed")
        self._tokens = self._split()
        self._at = 0
        self._depth = 0
        self._values = 0

    def filter(self) -> Filter:
        name = self._next("an event: " + ", ".join(self._events))
        if name.text not in self._events:
            raise self._wrong(name, f"`{name.text}` is no event", self._choices(name.text, self._events))
        event = self._events[name.text]
        where = None
        if self._accept("where"):
            where = self._or(event)
        rest = self._peek()
        if rest:
            expected = "`and`, `or` or the end" if where else "`where` or the end"
            raise self._wrong(rest, f"`{rest.text}` is not expected here", f"expected: {expected}")
        return Filter(event, where)

    def _or(self, event: Event) -> Node:
        nodes = [self._and(event)]
        while self._accept("or"):
            nodes.append(self._and(event))
        return nodes[0] if len(nodes) == 1 else Any(tuple(nodes))

    def _and(self, event: Event) -> Node:
        nodes = [self._not(event)]
        while self._accept("and"):
            nodes.append(self._not(event))
        return nodes[0] if len(nodes) == 1 else All(tuple(nodes))

    def _not(self, event: Event) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(self._peek(), "nested too deeply", f"{DEEPEST} levels are allowed")
        node: Node
        if self._accept("not"):
            node = Not(self._not(event))
        elif self._accept("("):
            node = self._or(event)
            self._expect(")")
        else:
            node = self._comparison(event)
        self._depth -= 1
        return node

    def _comparison(self, event: Event) -> Node:
        name = self._next("a field: " + ", ".join(event.fields))
        field = event.fields.get(name.text)
        if field is None or name.quoted:
            message = f"`{name.text}` is no field of {event.name}"
            raise self._wrong(name, message, self._choices(name.text, event.fields))
        if self._accept("not"):
            self._expect("in")
            return Not(Comparison(field, "in", self._listed(field)))
        if self._accept("in"):
            return Comparison(field, "in", self._listed(field))
        operator = self._next("a comparison: " + " ".join(_COMPARISONS) + " in")
        if operator.text not in _COMPARISONS:
            expected = "expected: " + " ".join(_COMPARISONS) + ", in, not in"
            raise self._wrong(operator, f"`{operator.text}` is no comparison", expected)
        if operator.text in _ORDERED and field.kind is not Kind.NUMBER:
            message = f"{field.name} has no order"
            raise self._wrong(operator, message, "allowed with it: == != in, not in")
        return Comparison(field, operator.text, (self._value(field, single=True),))

    def _listed(self, field: Field) -> tuple[Value, ...]:
        if not self._accept("("):
            return (self._value(field),)
        values = [self._value(field)]
        while self._accept(","):
            values.append(self._value(field))
        self._expect(")")
        return tuple(values)

    def _value(self, field: Field, *, single: bool = False) -> Value:
        token = self._next(f"for {field.name} {field.kind.value}")
        self._values += 1
        if self._values > MOST_VALUES:
            raise self._wrong(token, "too many values", f"{MOST_VALUES} are allowed in one filter")
        try:
            value = read(field, token.text)
        except ValueError as error:
            raise self._wrong(token, str(error), f"{field.name} is {field.meaning}: {allowed(field)}") from None
        if single and not is_single(value):
            raise self._wrong(token, f"`{token.text}` is more than one value", f"write: {field.name} in {token.text}")
        return value

    def _split(self) -> list[_Token]:
        tokens = []
        at = 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            assert match  # the last alternative takes any character
            group = match.lastindex or 0
            token = _Token(match.group(group), match.start(group) + 1, quoted=group == _QUOTED)
            if group == _STRAY:
                raise self._wrong(
                    token, f"`{token.text}` means nothing here", 'names, numbers, addresses, "words", ( ) ,'
                )
            tokens.append(token)
            at = match.end()
        return tokens

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, expected: str) -> _Token:
        token = self._peek()
        if token is None:
            raise self._wrong(None, "the filter ends too early", f"expected: {expected}")
        self._at += 1
        return token

    def _accept(self, text: str) -> bool:
        token = self._peek()
        if token is None or token.quoted or token.text != text:
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        token = self._peek()
        if not self._accept(text):
            found = f"`{token.text}` is not expected here" if token else "the filter ends too early"
            raise self._wrong(token, found, f"expected: `{text}`")

    def _wrong(self, token: _Token | None, message: str, allowed: str) -> UsageError:
        column = token.column if token else len(self._text) + 1
        shown = re.sub(r"[^\x20-\x7e]", "?", self._text)
        return UsageError(f"kernel filter, column {column}: {message}\n  {shown}\n  {' ' * (column - 1)}^\n  {allowed}")

    def _choices(self, word: str, names: Iterable[str]) -> str:
        near = difflib.get_close_matches(word, names, 1)
        return (f"did you mean `{near[0]}`? " if near else "") + "there are: " + ", ".join(names)
