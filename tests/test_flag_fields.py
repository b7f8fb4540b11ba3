"""How flags are declared, checked and written."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest

from spml_tf.__main__ import COMMANDS
from spml_tf.runs.settings import Settings, resolve
from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.flag_fields import flag_field, flag_fields, text_of, words_of


@dataclasses.dataclass(frozen=True)
class _Options:
    share: Any = flag_field(0.5, "", float, words=("auto",), low=0.25, high=1e5)
    count: int | None = flag_field(None, "", int, low=1)
    below: int = flag_field(0, "", int, name="under", high=7)
    any: float = flag_field(0.0, "", float)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"share": 0.2}, "--share=0.2: must lie between 0.25 and 100000"),
        ({"share": 100001}, "--share=100001: must lie between 0.25 and 100000"),
        ({"share": float("nan")}, "--share=nan: must lie between 0.25 and 100000"),
        ({"count": 0}, "--count=0: must be at least 1"),
        ({"below": 8}, "--under=8: must be at most 7"),
        ({"share": 0.2, "count": 0}, "--share=0.2: must lie between 0.25 and 100000"),
    ],
)
def test_numbers_out_of_bounds(given, says, capsys):
    with pytest.raises(UserError) as error:
        check_bounds(_Options(**given))
    assert str(error.value) == says

    def action(options: _Options) -> None:
        raise AssertionError("it is told before")

    names = {"below": "under"}
    words = [f"--{names.get(name, name)}={value}" for name, value in given.items()]
    cli.parse(words, _Options, "")  # passes: a plan names its row before
    assert cli.run(words, _Options, "", action, tensorflow=False) == 1
    assert says.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [{}, {"share": 0.25}, {"share": 1e5}, {"share": "auto"}, {"count": 1}, {"below": 7},
     {"below": -9}, {"any": float("inf")}],
)  # fmt: skip
def test_numbers_within_bounds(given):
    check_bounds(_Options(**given))


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_of_commands_lie_within_their_bounds(command):
    options = importlib.import_module(f"spml_tf.{command}")._Options
    check_bounds(options())
    for field in flag_fields(options):
        bounds = (field.metadata["low"], field.metadata["high"])
        assert bounds == (None, None) or field.metadata["kind"] in (int, float), field.name


def test_options_of_parts_have_the_bounds_that_the_parts_declare():
    """--positives_per_image, which takes a word too, and --ema_momentum, below 1."""
    check_bounds(Settings(positives_per_image="auto", ema_momentum=0.5))
    for given in ({"positives_per_image": -1}, {"ema_momentum": 1.0}):
        (name,) = given
        for check in (check_bounds, resolve):
            with pytest.raises(UserError, match=f"^--{name}={given[name]}: must"):
                check(Settings(**given))


def test_options_as_words():
    """Those at their defaults are left out; the words give the options back."""
    given = _Options(share="auto", count=3, below=-2)
    assert words_of(given) == ["--share=auto", "--count=3", "--under=-2"]
    assert words_of(given, ("count", "any")) == ["--count=3"] and words_of(_Options()) == []
    assert cli.parse(words_of(given), _Options, "") == given
    told = Settings(skip_broken=True, scaled_decoding=False, learning_rate=1e-5)
    assert words_of(told) == [
        "--skip_broken=true",
        "--scaled_decoding=false",
        "--learning_rate=1e-05",
    ]
    assert cli.parse(words_of(told), Settings, "") == told


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (1, "1"), (0.25, "0.25"), ("True", "True")],
)
def test_text_of_a_value(value, text):
    assert text_of(value) == text
