"""What the command-line modules share: flags without globals, errors without tracebacks."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import importlib
import inspect
import os
import platform
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from absl import flags

import spml_tf
from spml_tf.system import machine_faults, plugins, stop_requests
from spml_tf.system.errors import Terminated, UserError
from spml_tf.system.keras_import import (
    BackendError,
    require_tensorflow_backend,
    without_extras,
)
from spml_tf.system.strategies import STRATEGIES

_Options = TypeVar("_Options")

# Letters of a flag's name; no flag has half as many.
_LONGEST_FLAG = 100
HELP = ("-h", "--help", "-help", "--helpfull", "--helpshort")
VERSION, DEBUG = "--version", "--debug"
# How a command ends that was not done; see `run`.
_MISTAKE, _FAULT, _INTERRUPTED, _NOBODY_READS, _TERMINATED = 1, 2, 130, 141, 143
# What takes less memory when it is a smaller number, the first to be lowered first.
_COSTLY = ("batch_size", "image_size", "heatmap_size", "images", "top", "processes", "threads")

_debugging = contextvars.ContextVar("debugging", default=False)

_DEFINE: dict[type, Callable[..., Any]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


class _NumberOrWord(flags.ArgumentParser[Any]):
    """Reads a float or one of some words."""

    syntactic_help = "a number or a word"

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__()
        self.words = words

    def parse(self, argument: Any) -> Any:
        if argument in self.words:
            return argument
        try:
            return float(argument)
        except ValueError:
            raise ValueError(f"must be a number or {' or '.join(self.words)}") from None


def flag_field(
    default: Any,
    text: str,
    kind: type = str,
    choices: tuple[str, ...] | None = None,
    group: str | None = None,
    required: bool = False,
    name: str | None = None,
    words: tuple[str, ...] = (),
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
        },
    )


def flag_name(options: type, field: str) -> str:
    """The flag of a field.

    Args:
        options: dataclass of `flag_field`s.
        field: the field's name.
    """
    return _name(next(x for x in dataclasses.fields(options) if x.name == field))


def _name(field: dataclasses.Field[Any]) -> str:
    return field.metadata["name"] or field.name


def plugins_field() -> Any:
    """The dataclass field --plugins: `run` loads them before it reads the other flags."""
    return flag_field(
        None,
        "FILE.py or MODULE,...: code of your own that registers losses, rules, terms or networks. "
        "It is RUN: name only files that you trust.",
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
    for field in _flag_fields(type(options)):
        value = getattr(options, field.name)
        if value != field.default and field.name not in ("workers", "strategy"):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found.append(f"--{_name(field)}={text}")
    return found


def word_field(choices: tuple[str, ...]) -> Any:
    """A dataclass field for the one word, without dashes, that says what a command does.

    Args:
        choices: the words allowed; the usage text explains them.
    """
    return dataclasses.field(default="", metadata={"word": choices})


def _flag_fields(options: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(options) if "word" not in field.metadata]


def _define(values: flags.FlagValues, options: type) -> None:
    for field in _flag_fields(options):
        text, kind, choices = (field.metadata[x] for x in ("help", "kind", "choices"))
        default: Any = field.default
        if choices:
            flags.DEFINE_enum(_name(field), default, choices, text, flag_values=values)
        elif field.metadata["words"]:
            parser = _NumberOrWord(field.metadata["words"])
            flags.DEFINE(parser, _name(field), default, text, flag_values=values)
        else:
            _DEFINE[kind](_name(field), default, text, flag_values=values)


def _grouped(options: type) -> dict[str, list[dataclasses.Field[Any]]]:
    """The flags by their headings; those without a heading come first."""
    declared_by = {
        name: base for base in reversed(options.__mro__) for name in inspect.get_annotations(base)
    }
    groups: dict[str, list[dataclasses.Field[Any]]] = {"": []}
    for field in _flag_fields(options):
        group = field.metadata["group"]
        if group is None:
            group = vars(declared_by[field.name]).get("group", "")
        groups.setdefault(group, []).append(field)
    return groups


def _flag_help(field: dataclasses.Field[Any]) -> list[str]:
    choices = field.metadata["choices"]
    values = f"={'|'.join(choices)}" if choices else ""
    default = "" if field.default is None else f" (default: {field.default})"
    return [f"  --{_name(field)}{values}", f"      {field.metadata['help']}{default}"]


def _help(options: type, usage: str) -> str:
    lines = [usage, ""]
    for heading, fields in _grouped(options).items():
        lines += ["", heading] if heading else []
        for field in fields:
            lines += _flag_help(field)
        if not heading:
            lines += ["  --flagfile", "      File with one flag a line; # begins a comment."]
            lines += [f"  {DEBUG}", "      Print the traceback of an error before its line."]
            lines += [f"  {VERSION}", "      Print the version."]
    return "\n".join(lines)


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
            `plugins_field`, the plugins are loaded.
        usage: first lines of --help.
        extend: adds to `options` the flags of what plugins have registered.

    Returns:
        An instance of `options`.

    Raises:
        UserError: for a flag that does not exist, a value that does not fit, stray words, or a word
            or flag that is missing.
        SystemExit: after --help and --version.
    """
    if VERSION in argv:
        print(version())
        raise SystemExit(0)
    options = _with_plugins(argv, options, extend)
    values = flags.FlagValues()
    _define(values, options)
    if any(word in HELP for word in argv):
        print(_help(options, usage))
        raise SystemExit(0)
    try:
        with_files = values.read_flags_from_files(list(argv))
        _check_lengths(with_files)
        stray = values(["spml_tf", *with_files])[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--flagfile: {error}") from None
    words = _words(options, stray)
    given = {field.name: values[_name(field)].value for field in _flag_fields(options)}
    for field in _flag_fields(options):
        if field.metadata["required"] and given[field.name] in (None, ""):
            raise UserError(f"--{_name(field)} is missing; see --help")
    return options(**given, **words)


def _check_lengths(given: Sequence[str]) -> None:
    """Refuses long names, which absl compares with all others letter by letter."""
    for word in given:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and len(name) > _LONGEST_FLAG:
            raise UserError(f"--{name[:40]}...: no such flag; see --help")


def _with_plugins(
    argv: Sequence[str],
    options: type[_Options],
    extend: Callable[[type[Any]], type[Any]] | None,
) -> type[_Options]:
    """Loads what --plugins names; the options with the flags that it brings."""
    if all(field.name != "plugins" for field in _flag_fields(options)):
        return options
    values = flags.FlagValues()
    flags.DEFINE_string("plugins", None, "", flag_values=values)
    named = None
    with contextlib.suppress(flags.Error, OSError, UnicodeDecodeError):  # told of by `parse`
        values(["spml_tf", *argv], known_only=True)
        named = values.plugins
    if not named:
        return options
    import_tensorflow()
    plugins.load(named)
    return options if extend is None else extend(options)


def _words(options: type, stray: Sequence[str]) -> dict[str, str]:
    """The words that are no flags, by their fields' names."""
    for field in dataclasses.fields(options):
        if "word" in field.metadata:
            if len(stray) != 1 or stray[0] not in field.metadata["word"]:
                known = ", ".join(field.metadata["word"])
                found = " ".join(stray) or "none"
                raise UserError(f"give one of the words {known}, found {found}")
            return {field.name: stray[0]}
    if stray:
        raise UserError(f"{stray[0]!r} is not a flag; flags are written --name=value")
    return {}


def check_least(options: Any, **lows: int) -> None:
    """Refuses numbers that are too small.

    Args:
        options: the command's.
        lows: the smallest number allowed by a flag's name.

    Raises:
        UserError: naming the first one.
    """
    for name, low in lows.items():
        if getattr(options, name) < low:
            raise UserError(f"--{name}={getattr(options, name)}: must be at least {low}")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drops what libraries print on standard error, past Python; what Python prints passes."""
    sys.stderr.flush()
    kept, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        with open(kept, "w", closefd=False) as stream, contextlib.redirect_stderr(stream):
            yield
    finally:
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
    words = list(sys.argv[1:] if argv is None else argv)
    token = _debugging.set(DEBUG in words)
    given: _Options | None = None
    try:
        with stop_requests.raising(), _warnings_as_notes():
            given = parse([word for word in words if word != DEBUG], options, usage, extend)
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
        _drop_output()
        return _NOBODY_READS
    except Exception as error:
        _drop_unwritable_output()
        if _debugging.get():
            traceback.print_exc()
        code, line = _told(error, given, words)
        print("; ".join([f"error: {line}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return code
    finally:
        _debugging.reset(token)
    return 0


@contextlib.contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Shows warnings that are meant for users in a line, without a place in the code."""
    usual = warnings.formatwarning

    def as_note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if category is not UserWarning:
            return usual(message, category, filename, lineno, line)
        return f"note: {' '.join(str(message).split())}\n"

    warnings.formatwarning = as_note
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _told(error: Exception, given: Any, words: Sequence[str]) -> tuple[int, str]:
    """The exit code after an error, and the line that tells of it."""
    if isinstance(error, UserError | BackendError):
        return _MISTAKE, str(error)
    if machine_faults.out_of_memory(error):
        return _MISTAKE, f"memory is used up; {_less_memory(given)}"
    refused = machine_faults.os_error(error)
    if refused is not None:
        return _MISTAKE, machine_faults.line(refused)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return _FAULT, (
        f"unexpected {reason}; this is a fault of spml_tf: please report it to those who maintain "
        f"it, with {_traceback_file(words)}"
    )


def _less_memory(given: Any) -> str:
    """Which of a command's flags to change when memory is used up."""
    fields = {} if given is None else {x.name: x for x in _flag_fields(type(given))}
    advice = []
    for name in _COSTLY:
        if name in fields and fields[name].metadata["kind"] is int:
            value = getattr(given, name)
            advice.append(f"--{name}" if value is None else f"--{name}={value}")
    others = [
        f"--{name}={value}"
        for name, value in (("bank_dtype", "uint8"), ("heatmap_classes", 8), ("bank_dir", "DIR"))
        if name in fields and getattr(given, name) in (None, fields[name].default)
    ]
    told = [f"lower {' or '.join(advice)}"] if advice else []
    told += [f"give {' or '.join(others)}"] if others else []
    return ", or ".join(told) or "end other programs or use a machine with more"


def _traceback_file(words: Sequence[str]) -> str:
    """Writes the traceback of the current exception; what to report."""
    if _debugging.get():
        return "the command and the traceback above"
    text = (
        f"{version()}, Python {platform.python_version()}, {platform.platform()}\n"
        f"{shlex.join([sys.argv[0], *words])}\n\n{traceback.format_exc()}"
    )
    try:
        number, path = tempfile.mkstemp(prefix="spml_tf_error_", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return f"what {DEBUG} prints"
    return path


def _drop_output() -> None:
    """Lets Python end without another attempt to write what cannot be written."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.close(silent)


def _drop_unwritable_output() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _drop_output()
