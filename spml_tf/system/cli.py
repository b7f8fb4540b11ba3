"""How a command runs: flags without globals, errors without tracebacks."""

from __future__ import annotations

import contextvars
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from absl import flags

import spml_tf
from spml_tf.system import exit_codes, notes, plugins, progress, stop_requests
from spml_tf.system.errors import Terminated, UserError, printable, reason_of
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.flag_fields import define, flag_fields, name_of, words_of
from spml_tf.system.flag_help import help_text
from spml_tf.system.flag_words import (
    check_files,
    check_words,
    early_value,
    read_words,
    unknown_flag,
)
from spml_tf.system.tensorflow_import import import_tensorflow

_Options = TypeVar("_Options")

HELP = ("-h", "--help", "-help", "--helpfull", "--helpshort")
VERSION, DEBUG = "--version", "--debug"
# Flags of all commands.
_OTHERS = (
    ("--flagfile", "File with one flag a line; # begins a comment."),
    (DEBUG, "Print the traceback of an error before its line."),
    (VERSION, "Print the version."),
)
# How a command ends that was not done, but for an error; see `run`.
_INTERRUPTED, _NOBODY_READS, _TERMINATED = 130, 141, 143

_debugging = contextvars.ContextVar("debugging", default=False)


def flags_of_workers(options: Any) -> list[str]:
    """The command line of each worker of a command that was given --workers.

    Args:
        options: of the command, a dataclass of `flag_field`s.
    """
    passed = [
        field.name
        for field in flag_fields(type(options))
        if field.name not in ("workers", "strategy")
        # The values hold what these say.
        and not (field.metadata["before"] or field.metadata["listing"])
    ]
    debug = [DEBUG] * _debugging.get()
    return ["--strategy=multi_worker", *debug, *words_of(options, passed)]


def version() -> str:
    """What --version prints."""
    return f"spml_tf {spml_tf.__version__}"


def parse(
    argv: Sequence[str],
    options: type[_Options],
    usage: str,
    extend: Callable[[type[Any]], type[Any]] | None = None,
) -> _Options:
    """Reads flags and flagfiles.

    Args:
        argv: the arguments, without the program's name.
        options: dataclass of `flag_field`s and at most one `word_field`; where it has a
            `plugins_field`, the plugins are loaded. Its method `check_given`, if it has one, says
            which value cannot be, whatever the others are.
        usage: first lines of --help.
        extend: adds to `options` the flags of what plugins have registered.

    Returns:
        An instance of `options`.

    Raises:
        UserError: for a flag that does not exist, a value that does not fit, stray words, or a word
            or flag that is missing.
        SystemExit: after --help, --version and --list_presets.
    """
    if VERSION in argv:
        _print_and_end(version())
    options = _with_plugins(argv, options, extend)
    values = flags.FlagValues()
    define(values, options)
    flags.DEFINE_bool(DEBUG.removeprefix("--"), False, "", flag_values=values)
    if any(word in HELP for word in argv):
        _print_and_end(help_text(options, usage, _OTHERS))
    check_files(argv, options)
    argv = [*_flagfiles_before(argv, options), *argv]
    try:
        with_files = values.read_flags_from_files(list(argv))
        check_words(with_files, options)
        stray = values(["spml_tf", *with_files])[1:]
    except flags.UnrecognizedFlagError as error:
        bad = _bad_value(with_files, options)
        raise UserError("; ".join([*bad, unknown_flag(error, options)])) from None
    except flags.Error as error:
        raise UserError(reason_of(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--flagfile: {error}") from None
    if values.debug:  # perhaps in a flagfile
        _debugging.set(True)
    given = _values(values, options)
    for field in flag_fields(options):
        if field.metadata["listing"] and given[field.name]:
            _print_and_end(field.metadata["listing"]())
    words = read_words(stray, options)
    for field in flag_fields(options):
        if field.metadata["required"] and given[field.name] in (None, ""):
            raise UserError(f"--{name_of(field)} is missing; see --help")
    return options(**given, **words)


def _print_and_end(text: str) -> NoReturn:
    print(text, flush=True)  # a full disk is told of by `run`
    raise SystemExit(0)


def _values(values: flags.FlagValues, options: type) -> dict[str, Any]:
    """What was given, by the fields' names."""
    return {field.name: values[name_of(field)].value for field in flag_fields(options)}


def _bad_value(words: Sequence[str], options: type[_Options]) -> list[str]:
    """What `check_given` of the options says of a command line that has an unknown flag as well."""
    check = getattr(options, "check_given", None)
    if check is None:
        return []
    values = flags.FlagValues()
    define(values, options)
    values(["spml_tf", *words], known_only=True)
    try:
        check(options(**_values(values, options)))
    except UserError as error:
        return [str(error)]
    return []


def _flagfiles_before(argv: Sequence[str], options: type) -> list[str]:
    """The words that read the flagfiles that given flags name."""
    found = []
    for field in flag_fields(options):
        before = field.metadata["before"]
        value = early_value(argv, name_of(field)) if before else None
        found += [f"--flagfile={before(value)}"] if value else []
    return found


def _with_plugins(
    argv: Sequence[str],
    options: type[_Options],
    extend: Callable[[type[Any]], type[Any]] | None,
) -> type[_Options]:
    """Loads what --plugins names; the options with the flags that it brings."""
    if all(field.name != "plugins" for field in flag_fields(options)):
        return options
    named = early_value(argv, "plugins")
    if not named:
        return options
    import_tensorflow()
    plugins.load(named)
    return options if extend is None else extend(options)


def run(
    argv: Sequence[str] | None,
    options: type[_Options],
    usage: str,
    action: Callable[[_Options], None],
    tensorflow: bool = True,
    extend: Callable[[type[Any]], type[Any]] | None = None,
) -> int:
    """Runs a command; whatever ends it early is one line on standard error.

    The exit code is 0 when it is done; 1 after a user's mistake, or where the machine refuses a
    file or memory; 2 after an error that nobody expected, whose traceback goes to a file that the
    line names; 130 when interrupted and 143 when terminated; 141, and not a word, when nobody reads
    its output any more.
    With --debug the traceback of any error is printed before the line.

    Args:
        argv: the arguments; None means sys.argv's.
        options: dataclass of `flag_field`s and at most one `word_field`.
        usage: first lines of --help.
        action: the command, called with an instance of `options`.
        tensorflow: import it first; without, an action that may need it calls `import_tensorflow`.
        extend: as for `parse`.

    Returns:
        The exit code.
    """
    if sys.stderr is None:  # the shell has closed it: 2>&-
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    words = list(sys.argv[1:] if argv is None else argv)
    token = _debugging.set(DEBUG in words)
    given: _Options | None = None
    try:
        with (
            stop_requests.raising(), notes.once(), progress.of_command(), notes.of_warnings(),
        ):  # fmt: skip
            given = parse(words, options, usage, extend)
            check_bounds(given)
            if tensorflow:
                import_tensorflow()
            action(given)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is told of here, not when Python has ended
    except (KeyboardInterrupt, Terminated) as error:
        stopped = isinstance(error, Terminated)
        parts = [*map(str, error.args), *getattr(error, "__notes__", ())]
        line = ": ".join(["terminated" if stopped else "interrupted", *parts])
        print(printable(line), file=sys.stderr)
        return _TERMINATED if stopped else _INTERRUPTED
    except BrokenPipeError:
        exit_codes.drop_output()
        return _NOBODY_READS
    except Exception as error:
        return _told(error, given, words)
    finally:
        _debugging.reset(token)
    return 0


def show(text: str) -> int:
    """Prints a text; 0, or what `run` returns and says where standard output takes nothing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        exit_codes.drop_output()
        return _NOBODY_READS
    except OSError as error:
        return _told(error, None, sys.argv[1:])
    return 0


def _told(error: Exception, given: Any, words: Sequence[str]) -> int:
    """Says what ended a command; its exit code."""
    exit_codes.drop_unwritable_output()
    if _debugging.get():
        traceback.print_exc()
    code, line = exit_codes.told(error, given, words, _debugging.get())
    line = "; ".join([f"error: {line}", *getattr(error, "__notes__", ())])
    print(printable(line), file=sys.stderr)
    return code
