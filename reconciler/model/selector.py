"""Label selectors: a conjunction of requirements on labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from reconciler.model.labels import Label, LabelSet

ANY_SOURCE = "any"


class Operator(Enum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """`source` is `any` or a label source; `values` is empty for EXISTS and DOES_NOT_EXIST."""

    source: str
    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: LabelSet) -> bool:
        found = [label.value for label in labels if self._names(label)]
        if self.operator is Operator.EXISTS:
            return bool(found)
        if self.operator is Operator.DOES_NOT_EXIST:
            return not found
        within = any(value in self.values for value in found)
        return within if self.operator is Operator.IN else not within

    def _names(self, label: Label) -> bool:
        return label.key == self.key and self.source in (ANY_SOURCE, label.source)


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none at all selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: LabelSet) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def label_is(source: str, key: str, value: str = "") -> Requirement:
    return Requirement(source, key, Operator.IN, frozenset((value,)))
