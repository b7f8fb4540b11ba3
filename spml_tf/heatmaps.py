"""Figures of a run's heatmaps: `python -m spml_tf.heatmaps --run_dir=DIR --output_dir=DIR`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.system import cli
from spml_tf.system.files import naming_unwritable
from spml_tf.system.flag_fields import flag_field, plugins_field
from spml_tf.system.tensorflow_import import import_tensorflow

USAGE = """Draws the heatmaps of training images, as a PNG, an SVG and a CSV each.

usage: python -m spml_tf.heatmaps --run_dir=DIR --output_dir=DIR [--other_run_dir=DIR2]
           [--images=NAME,NAME] [--top=4] [--data_dir=DIR]

top_heatmaps: the classes of highest score over each photo, by the run's network.
heatmap_growth: how the maps of an annotated positive, of a positive without annotation and of a
negative grow over epochs, from the run's heatmaps.npz; of the classes of a kind the one whose
score is highest in the end. Needs data whose full labels are known.
heatmap_comparison, with --other_run_dir: the same images and classes by the networks of both runs,
such as one without and one with SCL."""


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str = flag_field(None, "Folder of the run.", required=True)
    output_dir: str = flag_field(
        None, "Folder for the figures; those of the same names there are replaced.", required=True
    )
    other_run_dir: str | None = flag_field(
        None, "Folder of a run on the same data, to draw beside the first."
    )
    images: str | None = flag_field(
        None,
        "Comma-separated names of training images. Default: the first 6 in heatmaps.npz, else the "
        "first of each class.",
    )
    top: int = flag_field(4, "Classes drawn of each image.", int, low=1)
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    plugins: str | None = plugins_field()


def draw(options: _Options) -> list[str]:
    """Draws the figures.

    Args:
        options: the command's flags.

    Returns:
        The figures' names; which are left out, and why, is said on standard error.

    Raises:
        UserError: for runs or data that cannot be read, images that are not there, or a folder that
            cannot be written.
    """
    from spml_tf.figures import run_heatmaps

    run_heatmaps.check_target(Path(options.output_dir))
    runs = run_heatmaps.read_runs(options.run_dir, options.other_run_dir)
    found = run_heatmaps.figures(runs, options.images, options.top, options.data_dir)
    with naming_unwritable(f"--output_dir={options.output_dir}"):
        run_heatmaps.write(found, Path(options.output_dir))
    return list(found)


def _action(options: _Options) -> None:
    import_tensorflow()
    print(f"{', '.join(draw(options))} in {options.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
