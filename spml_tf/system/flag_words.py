"""What is wrong with the words of a command line, and what to write instead."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
from collections.abc import Sequence

from absl import flags

from spml_tf.system.errors import UserError, reason_of
from spml_tf.system.flag_fields import flag_fields, name_of
from spml_tf.system.nearest import guess

# Letters of a flag's name; no flag has half as many.
_LONGEST_FLAG = 100
# How many flags that begin as an unknown one are named.
_SHOWN = 6
# How a file begins that some editors save as UTF-8, as UTF-8 and as Windows' own encoding read it.
_BYTE_ORDER_MARKS = ("\ufeff", "\xef\xbb\xbf")
# What text programs make of --.
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"


def early_value(argv: Sequence[str], name: str) -> str | None:
    """The text of a flag that is looked at before the others; None where it is not given.

    Args:
        argv: the command line. What is wrong with other words is told later.
        name: the flag's.
    """
    values = flags.FlagValues()
    flags.DEFINE_string(name, None, "", flag_values=values)
    with contextlib.suppress(flags.Error, OSError, UnicodeDecodeError):
        values(["spml_tf", *argv], known_only=True)
        return str(values[name].value) if values[name].value else None
    return None


def split_names(flag: str, text: str | None) -> list[str]:
    """The names in a flag that lists some, in quotation marks where they hold commas; "" for none.

    Raises:
        UserError: a quotation mark is not closed.

    Examples:
        >>> split_names("omit_columns", 'Sex, "Size[x,y]"')
        ['Sex', 'Size[x,y]']
    """
    if not text:
        return []
    try:
        (names,) = csv.reader([text], strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        raise UserError(
            f"--{flag}={text}: not names separated by commas; put those with commas in quotation "
            "marks"
        ) from None
    return [name.strip() for name in names]


def check_words(words: Sequence[str], options: type) -> None:
    """Refuses words that absl reads in a way that nobody means.

    Args:
        words: the command line, flagfiles read.
        options: dataclass of `flag_field`s.

    Raises:
        UserError: a name that is so long that absl, which compares it with all others letter by
            letter, takes minutes; a flag whose value would be the next flag; or the mark with
            which some editors begin a file.
    """
    with_values = {name_of(x) for x in flag_fields(options) if x.metadata["kind"] is not bool}
    known = {name_of(field) for field in flag_fields(options)}
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith(_BYTE_ORDER_MARKS):
            raise UserError("--flagfile: begins with a byte order mark; save it as UTF-8 without")
        name, equals, _ = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            continue
        if len(name) > _LONGEST_FLAG:
            raise UserError(f"--{name[:40]}...: no such flag; see --help")
        after = following.lstrip("-").partition("=")[0]
        if name in with_values and not equals and following.startswith("-") and after in known:
            raise UserError(
                f"--{name}: its value is missing, {following} follows; write --{name}=VALUE"
            )


def check_files(words: Sequence[str], options: type) -> None:
    """Refuses a flagfile or preset without a name, for which the defaults would be taken.

    Args:
        words: the command line, flagfiles not read.
        options: dataclass of `flag_field`s.

    Raises:
        UserError: there is one.
    """
    files = {"flagfile", *(name_of(x) for x in flag_fields(options) if x.metadata["before"])}
    for word, following in itertools.pairwise([*words, ""]):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in files and not (value if equals else following).strip():
            raise UserError(f"--{name}: is empty; name one, or leave it out")


def unknown_flag(error: flags.UnrecognizedFlagError, options: type) -> str:
    """The message about a flag that there is not.

    Args:
        error: absl's, which names a flag that is nearly the same.
        options: dataclass of `flag_field`s.
    """
    text = reason_of(error)
    if "Did you mean" in text:
        return text
    begun = [name for name in map(name_of, flag_fields(options)) if name.startswith(error.flagname)]
    if not begun:
        return f"{text}; --help lists those there are"
    more = f" and {len(begun) - _SHOWN} more" if len(begun) > _SHOWN else ""
    shown = ", ".join(f"--{name}" for name in sorted(begun)[:_SHOWN])
    return f"{text}; flags that begin so are {shown}{more}"


def read_words(stray: Sequence[str], options: type) -> dict[str, str]:
    """The words that are no flags, by their fields' names.

    Args:
        stray: what is left of the command line.
        options: dataclass with at most one `word_field`.

    Raises:
        UserError: for any other word, or none.
    """
    for field in dataclasses.fields(options):
        if "word" in field.metadata:
            if len(stray) != 1 or stray[0] not in field.metadata["word"]:
                known = ", ".join(field.metadata["word"])
                found = " ".join(stray) or "none"
                near = guess(stray[0], field.metadata["word"]) if len(stray) == 1 else ""
                raise UserError(f"give one of the words {known}, found {found}{near}")
            return {field.name: stray[0]}
    if stray:
        raise UserError(f"{stray[0]!r} is not a flag; {_as_flag(stray[0], options)}")
    return {}


def _as_flag(word: str, options: type) -> str:
    name, equals, value = word.lstrip(_DASHES).partition("=")
    if name in map(name_of, flag_fields(options)) and (equals or name != word):
        return f"write --{name}{equals}{value}"
    return "flags are written --name=value"
