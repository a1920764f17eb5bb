"""The C that a filter becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import FeatureMissing
from reconciler.observe.kernel_events import catalogue
from reconciler.observe.kernel_expression import parse
from reconciler.observe.kernel_layout import Layout, layout
from reconciler.observe.kernel_program import program

EVENTS = catalogue({"NO_SOCKET": 3})
OFFSETS = {"NET_NUMBER": 176}
ARGUMENTS = {
    "kfree_skb": ("sk_buff", "void", "skb_drop_reason", "sock"),
    "inet_sock_set_state": ("sock", "int", "int"),
}


def condition(text: str) -> str:
    code = program(parse(text, EVENTS), Layout(OFFSETS, {}, ARGUMENTS))
    body = code.partition("static __always_inline int matches(const struct record *r)")[2]
    return body.partition("return ")[2].partition(";")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drop", "1"),
        ("drop where sport == 80", "(r->sport == 80U)"),
        ("drop where sport != 80", "!(r->sport == 80U)"),
        ("drop where sport >= 80", "r->sport >= 80U"),
        ("drop where sport in 1-9", "(r->sport >= 1U && r->sport <= 9U)"),
        ("drop where reason in (NO_SOCKET, 9)", "(r->reason == 3U) || (r->reason == 9U)"),
        ("drop where not sport < 2 and dport > 3", "(!(r->sport < 2U)) && (r->dport > 3U)"),
        ("drop where sport < 2 or dport > 3", "(r->sport < 2U) || (r->dport > 3U)"),
        ("drop where saddr in 0.0.0.0/0", "(r->family == 4)"),
    ],
)
def test_a_tree_becomes_a_condition(text: str, expected: str) -> None:
    assert condition(text) == expected


def test_arguments_of_a_tracepoint_are_found_by_their_type() -> None:
    older = {"kfree_skb": ("sk_buff", "void", "skb_drop_reason"), "inet_sock_set_state": ("sock", "int", "int")}
    newer = {"kfree_skb": ("sk_buff", "void", "sock", "skb_drop_reason")}
    wanted = parse("drop", EVENTS)
    assert "r.reason = context->args[2];" in program(wanted, Layout(OFFSETS, {}, older))
    assert "r.reason = context->args[3];" in program(wanted, Layout(OFFSETS, {}, newer))
    assert "r.newstate = context->args[2];" in program(parse("state", EVENTS), Layout(OFFSETS, {}, older))


def test_a_tracepoint_that_the_kernel_lacks_is_a_missing_feature() -> None:
    with pytest.raises(FeatureMissing, match="tcp_receive_reset"):
        program(parse("reset", EVENTS), Layout(OFFSETS, {}, ARGUMENTS))


@given(st.text(alphabet=st.characters(codec="utf-8", min_codepoint=33, exclude_characters='"'), min_size=1, max_size=3))
def test_nothing_that_the_operator_wrote_reaches_the_compiler(word: str) -> None:
    plain = program(parse('drop where ifname == "x"', EVENTS), Layout(OFFSETS, {}, ARGUMENTS))
    code = program(parse(f'drop where ifname == "{word}"', EVENTS), Layout(OFFSETS, {}, ARGUMENTS))
    assert [line for line in code.splitlines() if "ifname[0] ==" not in line] == [
        line for line in plain.splitlines() if "ifname[0] ==" not in line
    ]
    numbers = condition(f'drop where ifname == "{word}"')
    assert not set(numbers) - set("(r->ifname[01] == 0123456789ULL && )")


class Bare:
    """A kernel whose BTF knows nothing."""

    def member_offset(self, struct: str, member: str) -> int | None:
        return None

    def enumerators(self, enum: str) -> dict[str, int]:
        return {}

    def tracepoint_arguments(self, tracepoint: str) -> tuple[str, ...] | None:
        return None


def test_a_kernel_that_keeps_things_elsewhere_is_a_missing_feature_with_their_names() -> None:
    with pytest.raises(FeatureMissing, match=r"sk_buff\.head"):
        layout(Bare(), ("kfree_skb",))
