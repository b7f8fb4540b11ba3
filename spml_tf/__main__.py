"""Lists the commands: `python -m spml_tf`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from spml_tf.system import cli

COMMANDS = (
    "train", "evaluate", "export", "predict", "data", "experiments", "analyze", "heatmaps", "audit",
    "review", "report",
)  # fmt: skip


def listing() -> str:
    """Each command with the first line of its --help."""
    width = max(map(len, COMMANDS))
    lines = ["Multi-label image classification from single positive labels.", ""]
    for name in COMMANDS:
        usage: str = importlib.import_module(f"spml_tf.{name}").USAGE
        lines.append(f"  {name:{width}}  {usage.partition(chr(10))[0]}")
    return "\n".join([*lines, "", "python -m spml_tf.COMMAND --help tells more of a command."])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the list, or the version; 2 for a word that is neither."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        print(f"error: {words[0]}: write python -m spml_tf.{words[0]}", file=sys.stderr)
        return 2
    if words and words[0] not in (*cli.HELP, cli.VERSION):
        known = ", ".join(COMMANDS)
        print(f"error: {words[0]!r} is no command; the commands are {known}", file=sys.stderr)
        return 2
    print(cli.version() if cli.VERSION in words else listing())
    return 0


if __name__ == "__main__":
    sys.exit(main())
