"""The arguments of the magics: flags, and the expression after them."""

from __future__ import annotations

import pytest

from jobcontainer.notebook.arguments import ArgumentsError, HelpRequested, submit_parser


@pytest.mark.parametrize(
    ("line", "expression", "given"),
    [
        ("Train(0.1)", "Train(0.1)", {}),
        ("--wait Train(- 1)", "Train(- 1)", {"wait": True}),
        ("--timeout 5 --wait  f(x)  ", "f(x)", {"timeout": 5.0, "wait": True}),
        ("--timeout=5 f(x)", "f(x)", {"timeout": 5.0}),
        ("--name 'my job' f('a  b')", "f('a  b')", {"name": "my job"}),
        ('--name my" "job f("it\'s")', 'f("it\'s")', {"name": "my job"}),
        ("--name a\\ b {1: '''2'''}", "{1: '''2'''}", {"name": "a b"}),
        ("--env A=1 --env B=2 [f(x), -y]", "[f(x), -y]", {"env": [("A", "1"), ("B", "2")]}),
    ],
)
def test_flags_end_where_the_expression_begins(line, expression, given):
    """The expression is returned as it was typed, whatever quotes it has; blanks in quotes belong to a flag's value."""
    flags, rest = submit_parser("%jobcontainer").parse_before_expression(line)
    assert rest == expression
    assert {name: getattr(flags, name) for name in given} == given


@pytest.mark.parametrize(
    "line", ["--name 'open f()", "--name a'b f()", "--unknown f()", "--timeout", "--timeout x f()"]
)
def test_a_line_that_can_not_be_parsed_is_an_error_with_the_usage(line):
    """An open quote, an unknown flag, a missing value and a wrong value are all reported."""
    with pytest.raises(ArgumentsError, match=r"usage: %jobcontainer \[--help\]"):
        submit_parser("%jobcontainer").parse_before_expression(line)


def test_help_needs_no_expression():
    """``--help`` is found among the flags of a line."""
    with pytest.raises(HelpRequested, match="--timeout SECONDS"):
        submit_parser("%jobcontainer").parse_before_expression("--wait --help f()")


def test_every_flag_is_offered_for_completion():
    """The flags of the magic and the options of a job, each once."""
    flags = submit_parser("%%jobcontainer").flags()
    assert {"--as", "--wait", "--engine", "--save", "--help", "--timeout", "--env", "--detach"} <= set(flags)
    assert flags == sorted(set(flags))
