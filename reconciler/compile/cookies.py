"""Cookies: the number by which a policy row, and every event it causes, names the entry that it comes from.

A cookie is a hash of what the entry is called (kind, namespace, name, field), so it survives commits, restarts and
reordered files. It is never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from operator import attrgetter

from reconciler.compile.contents import COOKIES, Content
from reconciler.compile.numbering import hashed, number
from reconciler.model.cluster import Cluster
from reconciler.model.origin import Origin
from reconciler.model.policy import PolicyRule

ENFORCEMENT = "policy.enforcement"
ALLOW_LOCALHOST = "policy.allowLocalhost"
_SETTINGS = (ENFORCEMENT, ALLOW_LOCALHOST)
_OF_SETTINGS = [hashed(name, 0) % COOKIES + 1 for name in _SETTINGS]
_ORIGIN = attrgetter("origin")


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """What a cookie stands for. `field` is an entry (`ingress[0]`), a direction that the rule isolates (`ingress`), or
    the setting of the `Cluster` document that decides where no rule does."""

    origin: Origin
    reference: str
    field: str


class Infos(Mapping[int, RuleInfo]):
    """cookie -> what it stands for, made when it is asked for: there are many, and few are ever shown.

    `cookies` and `origins` are those of all, in one order.
    """

    def __init__(self, cookies: Sequence[int], origins: Sequence[Origin], named: Sequence[tuple[str, str]]) -> None:
        """`named`: reference and field."""
        self.cookies = cookies
        self.origins = origins
        self._named = named

    @cached_property
    def _places(self) -> dict[int, int]:
        return dict(zip(self.cookies, range(len(self.cookies)), strict=True))

    def __getitem__(self, cookie: int) -> RuleInfo:
        place = self._places[cookie]
        return RuleInfo(self.origins[place], *self._named[place])

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Cookies:
    """`of_rule`: id() of a rule -> field -> cookie; `settings`: field of the cluster -> cookie."""

    infos: Infos
    of_rule: Mapping[int, Mapping[str, int]]
    settings: Mapping[str, int]


def cookies(rules: Sequence[PolicyRule], contents: Mapping[int, Content], cluster: Cluster) -> Cookies:
    """Two rules of one name (several `specs`) with the same field get different cookies, in the order of `rules`."""
    said = [contents[id(rule)] for rule in rules]
    drawn = [*chain.from_iterable([content.drawn for content in said]), *_OF_SETTINGS]
    named = [*chain.from_iterable([content.named for content in said])]
    named += [(f"Cluster/{cluster.name}", field) for field in _SETTINGS]
    origins = [*chain.from_iterable(map(_origins, rules, said)), *(cluster.origin for _ in _SETTINGS)]
    of_rule: dict[int, Mapping[str, int]]
    if len(set(drawn)) == len(named):
        of_rule = dict(zip(map(id, rules), [content.cookies for content in said], strict=True))
    else:
        drawn = _numbered([*chain.from_iterable([content.called for content in said]), *_SETTINGS])
        rest = iter(drawn)
        of_rule = {
            id(rule): {field: cookie for (_, field), cookie in zip(content.named, rest, strict=False)}
            for rule, content in zip(rules, said, strict=True)
        }
    return Cookies(Infos(drawn, origins, named), of_rule, dict(zip(_SETTINGS, drawn[-len(_SETTINGS) :], strict=True)))


def _origins(rule: PolicyRule, content: Content) -> list[Origin]:
    """In the order of its cookies."""
    return [rule.origin] * content.isolations + [*map(_ORIGIN, rule.ingress), *map(_ORIGIN, rule.egress)]


def _numbered(names: Sequence[str]) -> list[int]:
    """Cookies of names that clash, or of which some draw the same one."""
    taken: dict[str, None] = {}
    for name in names:
        taken[_unused(name, taken)] = None
    drawn = number(taken, COOKIES)
    return [drawn[name] + 1 for name in taken]


def _unused(name: str, taken: Mapping[str, object]) -> str:
    unused, count = name, 1
    while unused in taken:
        count += 1
        unused = f"{name} #{count}"
    return unused
