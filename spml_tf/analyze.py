"""Figures that compare runs: `python -m spml_tf.analyze --run_dirs=A,B --output_dir=DIR`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.system import cli
from spml_tf.system.files import naming_unwritable
from spml_tf.system.flag_fields import flag_field, plugins_field, words_of
from spml_tf.system.flag_words import split_names
from spml_tf.system.tensorflow_import import import_tensorflow

USAGE = """Draws figures that compare runs, with the numbers behind them.

usage: python -m spml_tf.analyze --run_dirs=A,B,... --output_dir=DIR [--data_dir=DIR]
           [--experiment_csv=FILE] [--names=NAME,...]

Each figure is a PNG, an SVG and a CSV in DIR; DIR/index.md shows and explains them, and says which
are left out and why. Runs of one method that differ in their seed are drawn as one; all must share
data set, classes and images."""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dirs: str = flag_field(None, "Comma-separated folders of finished runs.", required=True)
    output_dir: str = flag_field(
        None, "Folder for the figures; an earlier analysis there is replaced.", required=True
    )
    names: str | None = flag_field(
        None,
        "Comma-separated names, one a run: runs of one name are drawn as one. Default: the method, "
        "and the flags in which runs of it differ.",
    )
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the runs' own."
    )
    experiment_csv: str | None = flag_field(
        None, "CSV of an experiment that varies crop_area, for the figure of crop intervals."
    )
    batch_size: int = flag_field(32, "Images at a time.", int, low=1)
    plugins: str | None = plugins_field()


def analyze(options: _Options) -> None:
    """Writes the figures.

    Args:
        options: the command's flags.

    Raises:
        UserError: for runs that cannot be compared or read, or an output folder of other files.
    """
    from spml_tf.figures import analysis, compared_runs

    target = Path(options.output_dir).absolute()
    analysis.check_target(target)
    found = compared_runs.read(
        split_names("run_dirs", options.run_dirs),
        None if options.names is None else split_names("names", options.names),
        options.data_dir,
        options.experiment_csv,
        options.batch_size,
    )
    command = shlex.join(["python", "-m", "spml_tf.analyze", *words_of(options)])
    with naming_unwritable(f"--output_dir={options.output_dir}"):
        count = analysis.write(found, target, command)
    print(f"{count} figures in {options.output_dir}")


def _action(options: _Options) -> None:
    import_tensorflow()
    analyze(options)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
