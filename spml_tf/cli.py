"""What the command-line modules share: flags without globals, errors without tracebacks."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from spml_tf.errors import UserError

_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def flag_field(
    default: Any, text: str, kind: type = str, choices: tuple[str, ...] | None = None
) -> Any:
    """A dataclass field that `run` turns into a flag.

    Args:
        default: the flag's default; None means not given.
        text: what --help says.
        kind: str, int, float or bool.
        choices: the values allowed, None for any.
    """
    return dataclasses.field(
        default=default, metadata={"help": text, "kind": kind, "choices": choices}
    )


def _define(values: flags.FlagValues, options: type) -> None:
    for field in dataclasses.fields(options):
        text, kind, choices = (field.metadata[x] for x in ("help", "kind", "choices"))
        if choices:
            flags.DEFINE_enum(field.name, field.default, choices, text, flag_values=values)
        else:
            _DEFINE[kind](field.name, field.default, text, flag_values=values)


def _help(values: flags.FlagValues, options: type, usage: str) -> str:
    lines = [usage, ""]
    for field in dataclasses.fields(options):
        default = "" if field.default is None else f" (default: {field.default})"
        lines += [f"  --{field.name}", f"      {field.metadata['help']}{default}"]
    return "\n".join(
        [*lines, "  --flagfile", "      File with one flag a line; # begins a comment."]
    )


def parse(argv: Sequence[str], options: type, usage: str) -> Any:
    """Reads flags and flagfiles.

    Args:
        argv: the arguments, without the program's name.
        options: dataclass of `flag_field`s.
        usage: first lines of --help.

    Returns:
        An instance of `options`.

    Raises:
        UserError: for a flag that does not exist, a value that does not fit, or stray words.
        SystemExit: after --help.
    """
    values = flags.FlagValues()
    _define(values, options)
    if any(word in ("-h", "--help", "-help", "--helpfull", "--helpshort") for word in argv):
        print(_help(values, options, usage))
        raise SystemExit(0)
    try:
        stray = values(["spml_tf", *argv])[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--flagfile: {error}") from None
    if stray:
        raise UserError(f"{stray[0]!r} is not a flag; flags are written --name=value")
    return options(**{f.name: values[f.name].value for f in dataclasses.fields(options)})


def _import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, which would drown a one-line error.

    It prints some before its logging can be told not to, hence the closed standard error.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silent)


def run(
    argv: Sequence[str] | None, options: type, usage: str, action: Callable[[Any], None]
) -> int:
    """Runs a command: 0 when it is done, 1 after a user's mistake, 130 when interrupted.

    Args:
        argv: the arguments; None means sys.argv's.
        options: dataclass of `flag_field`s.
        usage: first lines of --help.
        action: the command, called with an instance of `options`.

    Returns:
        The exit code.
    """
    try:
        given = parse(sys.argv[1:] if argv is None else argv, options, usage)
        _import_tensorflow()
        action(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(": ".join(["interrupted", *map(str, error.args)]), file=sys.stderr)
        return 130
    return 0
