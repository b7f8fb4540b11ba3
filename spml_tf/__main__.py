"""Lists the commands: `python -m spml_tf`."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterable, Sequence

from spml_tf.datasets.readers import READERS
from spml_tf.system import cli, presets
from spml_tf.system import completion as completions
from spml_tf.system.nearest import guess
from spml_tf.training import methods

COMMANDS = (
    "train", "evaluate", "export", "predict", "data", "experiments", "analyze", "heatmaps", "audit",
    "review", "report",
)  # fmt: skip


# How `main` is asked for a script that completes flags.
_COMPLETION = "--completion=bash"


def completion() -> str:
    """The script that completes the flags of the installed commands; see `completion.bash`."""
    helps = {}
    for name in COMMANDS:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            importlib.import_module(f"spml_tf.{name}").main(["--help"])
        helps[f"spml-tf-{name}"] = shown.getvalue()
    values: dict[str, Iterable[str]] = {
        "preset": presets.flagfiles(), "plan": presets.plans(), "dataset": READERS,
        "method": methods.METHODS,
    }  # fmt: skip
    return completions.bash(helps, values)


def listing() -> str:
    """Each command with the first line of its --help."""
    width = max(map(len, COMMANDS))
    lines = ["Multi-label image classification from single positive labels.", ""]
    for name in COMMANDS:
        usage: str = importlib.import_module(f"spml_tf.{name}").USAGE
        lines.append(f"  {name:{width}}  {usage.partition(chr(10))[0]}")
    lines += ["", "python -m spml_tf.COMMAND --help tells more of a command."]
    lines += [f'eval "$(python -m spml_tf {_COMPLETION})" completes flags in bash.']
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the list, the version or the script for shells; 2 for any other word."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        print(f"error: {words[0]}: write python -m spml_tf.{words[0]}", file=sys.stderr)
        return 2
    if words and words[0] == _COMPLETION:
        return cli.show(completion().rstrip())
    if words and words[0] not in (*cli.HELP, cli.VERSION):
        known = ", ".join(COMMANDS)
        near = guess(words[0], COMMANDS)
        print(f"error: {words[0]!r} is no command; the commands are {known}{near}", file=sys.stderr)
        return 2
    return cli.show(cli.version() if cli.VERSION in words else listing())


if __name__ == "__main__":
    sys.exit(main())
