"""A page about a run: `python -m spml_tf.report --run_dir=DIR` writes DIR/report.html."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.files import naming_unwritable, write_text
from spml_tf.system.flag_fields import flag_field, plugins_field
from spml_tf.system.flag_words import split_names
from spml_tf.system.tensorflow_import import import_tensorflow

USAGE = """Writes DIR/report.html, one file that any browser shows without a network.

usage: python -m spml_tf.report --run_dir=DIR [--compare=DIR2,DIR3] [--data_dir=DIR] [--images=24]

The page holds the run's settings, its curves, the average precision of each class, photos with
heatmaps, the labels that the training data are probably missing, and a comparison with other runs
on the same data."""

_LARGEST_PAGE = 20_000_000  # bytes


@dataclasses.dataclass(frozen=True)
class _Options:
    run_dir: str = flag_field(None, "Folder of the finished run.", required=True)
    compare: str | None = flag_field(
        None, "Comma-separated folders of other finished runs on the same data."
    )
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    images: int = flag_field(24, "How many photos to show with heatmaps.", int, low=0)
    candidates: int = flag_field(24, "How many labels to show as probably missing.", int, low=0)
    batch_size: int = flag_field(32, "Images at a time.", int, low=1)
    plugins: str | None = plugins_field()


def report(options: _Options) -> str:
    """Writes the page.

    Args:
        options: the command's flags.

    Returns:
        The page's path.

    Raises:
        UserError: for runs that cannot be read or compared, data that cannot be read from
            --data_dir, a page that would be too large, or a folder that cannot be written.
    """
    from spml_tf.pages import report as pages_report
    from spml_tf.runs.run_folder import RunFolder

    content = pages_report.build(
        options.run_dir,
        split_names("compare", options.compare),
        options.data_dir,
        options.images,
        options.candidates,
        options.batch_size,
    )
    size = len(content.encode("utf-8"))
    if size > _LARGEST_PAGE:
        raise UserError(
            f"--images={options.images} and --candidates={options.candidates}: the page would have "
            f"{size / 1e6:.0f} MB; give fewer"
        )
    path = RunFolder(options.run_dir).path / "report.html"
    with naming_unwritable(str(path)):
        write_text(path, content)
    return str(path)


def _action(options: _Options) -> None:
    import_tensorflow()
    print(report(options))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
