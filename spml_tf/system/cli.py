"""What the command-line modules share: flags without globals, errors without tracebacks."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from absl import flags

import spml_tf
from spml_tf.system import endings, notes, plugins, presets, progress, stop_requests
from spml_tf.system.errors import Terminated, UserError, reason_of
from spml_tf.system.flag_fields import define, flag_fields, name_of
from spml_tf.system.flag_help import help_text
from spml_tf.system.flag_words import check_words, early_value, read_words, unknown_flag
from spml_tf.system.keras_import import require_tensorflow_backend, without_extras
from spml_tf.system.strategies import STRATEGIES

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


def flag_field(
    default: Any,
    text: str,
    kind: type = str,
    choices: tuple[str, ...] | None = None,
    group: str | None = None,
    required: bool = False,
    name: str | None = None,
    words: tuple[str, ...] = (),
    before: Callable[[str], Path] | None = None,
    listing: Callable[[], str] | None = None,
) -> Any:
    """A dataclass field that `run` turns into a flag.

    Args:
        default: the flag's default; None means not given.
        text: what --help says.
        kind: str, int, float or bool.
        choices: the values allowed, None for any.
        group: heading of the flag in --help; None means the attribute `group` of the class that
            declares the field, and where it has none the flag stands first, without a heading.
        required: refuse a command line without it, or with an empty text.
        name: the flag's, where it is a word that Python keeps for itself; else the field's.
        words: texts that may stand in place of a float.
        before: the flagfile that a value names, which is read before what is given.
        listing: what is printed in place of the command where the flag is given.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": text,
            "kind": kind,
            "choices": choices,
            "group": group,
            "required": required,
            "name": name,
            "words": words,
            "before": before,
            "listing": listing,
        },
    )


def flag_name(options: type, field: str) -> str:
    """The flag of a field.

    Args:
        options: dataclass of `flag_field`s.
        field: the field's name.
    """
    return name_of(next(x for x in dataclasses.fields(options) if x.name == field))


def plugins_field() -> Any:
    """The dataclass field --plugins: `run` loads them before it reads the other flags."""
    return flag_field(
        None,
        "FILE.py or MODULE,...: code of your own that registers losses, rules, terms, networks or "
        "data sets. It is RUN: name only files that you trust.",
    )


def calibration_field(what: str) -> Any:
    """The dataclass field --calibration; `what` it changes begins its help."""
    return flag_field(
        "none",
        f"{what} are of calibrated scores, fitted to the validation labels. temperature: a factor "
        "of each class's logits; platt: factor and offset; where validation labels tell of no "
        "negatives, as estimated from which positives were annotated. Classes with fewer than 10 "
        "validation positives are calibrated together.",
        str,
        ("none", "temperature", "platt"),
    )


def preset_field() -> Any:
    """The dataclass field --preset: `parse` reads its flagfile before the flags that are given."""
    return flag_field(
        None,
        "Flagfile that comes with spml_tf, such as digits/en_scl. Flags beside it win.",
        before=presets.flagfile,
    )


def list_presets_field(found: Callable[[], Mapping[str, Path]]) -> Any:
    """The dataclass field --list_presets: `parse` prints the list, and the command ends.

    Args:
        found: returns the files by name.
    """
    return flag_field(
        False,
        "List what comes with spml_tf, by name.",
        bool,
        listing=lambda: presets.listing(found()),
    )


_DEVICES = "Several devices"


def strategy_field() -> Any:
    """The dataclass field --strategy."""
    return flag_field(
        "none",
        "none: one device; mirrored: all GPUs of this machine; multi_worker: those of all "
        "processes that TF_CONFIG or Slurm tells of.",
        str,
        STRATEGIES,
        _DEVICES,
    )


def devices_field() -> Any:
    """The dataclass field --devices."""
    return flag_field(
        0,
        "Devices of each process, with a strategy; 0: all GPUs. Without a GPU, logical CPUs.",
        int,
        group=_DEVICES,
    )


def workers_field() -> Any:
    """The dataclass field --workers."""
    return flag_field(
        0,
        "Start so many processes on this machine, with --strategy=multi_worker, and join what they "
        "print. Its GPUs are dealt out to them.",
        int,
        group=_DEVICES,
    )


def flags_of_workers(options: Any) -> list[str]:
    """The command line of each worker of a command that was given --workers.

    Args:
        options: of the command, a dataclass of `flag_field`s.
    """
    found = ["--strategy=multi_worker", *[DEBUG] * _debugging.get()]
    for field in flag_fields(type(options)):
        value = getattr(options, field.name)
        told = field.metadata["before"] or field.metadata["listing"]  # the values hold what it says
        if value != field.default and field.name not in ("workers", "strategy") and not told:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found.append(f"--{name_of(field)}={text}")
    return found


def word_field(choices: tuple[str, ...]) -> Any:
    """A dataclass field for the one word, without dashes, that says what a command does.

    Args:
        choices: the words allowed; the usage text explains them.
    """
    return dataclasses.field(default="", metadata={"word": choices})


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
        print(version())
        raise SystemExit(0)
    options = _with_plugins(argv, options, extend)
    values = flags.FlagValues()
    define(values, options)
    flags.DEFINE_bool(DEBUG.removeprefix("--"), False, "", flag_values=values)
    if any(word in HELP for word in argv):
        print(help_text(options, usage, _OTHERS))
        raise SystemExit(0)
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
            print(field.metadata["listing"]())
            raise SystemExit(0)
    words = read_words(stray, options)
    for field in flag_fields(options):
        if field.metadata["required"] and given[field.name] in (None, ""):
            raise UserError(f"--{name_of(field)} is missing; see --help")
    return options(**given, **words)


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


def check_least(options: Any, **lows: int) -> None:
    """Refuses numbers that are too small.

    Args:
        options: the command's.
        lows: the smallest number allowed by a flag's name; flags that are not given pass.

    Raises:
        UserError: naming the first one.
    """
    for name, low in lows.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UserError(f"--{name}={value}: must be at least {low}")


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Refuses a flag's value outside [low, high]; None passes.

    Raises:
        UserError: naming flag and range.
    """
    if value is not None and not low <= value <= high:
        raise UserError(f"--{name}={value}: must lie between {low} and {high:g}")


class _Passing(io.TextIOBase):
    """Standard error, for loggers that keep the one they find when they are made.

    Attributes:
        stream: where text goes, None for what is standard error then.
    """

    stream: TextIO | None = None

    def write(self, text: str) -> int:
        return (self.stream or sys.stderr).write(text)

    def flush(self) -> None:
        (self.stream or sys.stderr).flush()

    def isatty(self) -> bool:
        return (self.stream or sys.stderr).isatty()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drops what libraries print on standard error, past Python; what Python prints passes."""
    passing = _Passing()
    sys.stderr.flush()
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        with open(kept, "w", closefd=False) as stream, contextlib.redirect_stderr(passing):
            passing.stream = stream
            yield
    finally:
        passing.stream = None
        os.dup2(kept, 2)
        os.close(kept)


def import_tensorflow() -> None:
    """Imports TensorFlow without its start-up messages, which would drown a one-line error.

    It prints some before its logging can be told not to.

    Raises:
        BackendError: Keras, which TensorFlow imports, has another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_libraries(), without_extras():
        importlib.import_module("tensorflow")
        require_tensorflow_backend()


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
            if tensorflow:
                import_tensorflow()
            action(given)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is told of here, not when Python has ended
    except (KeyboardInterrupt, Terminated) as error:
        stopped = isinstance(error, Terminated)
        parts = [*map(str, error.args), *getattr(error, "__notes__", ())]
        print(": ".join(["terminated" if stopped else "interrupted", *parts]), file=sys.stderr)
        return _TERMINATED if stopped else _INTERRUPTED
    except BrokenPipeError:
        endings.drop_output()
        return _NOBODY_READS
    except Exception as error:
        endings.drop_unwritable_output()
        if _debugging.get():
            traceback.print_exc()
        code, line = endings.told(error, given, words, _debugging.get())
        print("; ".join([f"error: {line}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return code
    finally:
        _debugging.reset(token)
    return 0
