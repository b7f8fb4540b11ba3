"""Labels decided in a browser and kept on the disk: `python -m spml_tf.review --audit_dir=DIR`."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_field, plugins_field
from spml_tf.system.flag_words import split_names
from spml_tf.system.tensorflow_import import import_tensorflow

USAGE = """Serves the page of an audit or of suggested photos, keeps each decision; merges reviews.

usage: python -m spml_tf.review --audit_dir=DIR --reviewer=ann
       python -m spml_tf.review --run_dir=RUN
       python -m spml_tf.review --merge=reviewed_ann.csv,reviewed_bob.csv --output_dir=DIR2

The first prints an address to open in a browser on this machine; what is decided there is in
DIR/reviewed_ann.csv at once, and the next start goes on from it. Ctrl-C ends it. The second makes
the audit first where there is none, in RUN/audit unless --audit_dir names another folder.

The third writes reviewed.csv, the labels that nobody contradicts, and disagreements.csv with what
each file says of the others, to be settled in its column label.

All of these files can be given to python -m spml_tf.audit --reviewed."""

_REVIEWER = re.compile(r"[\w-]{1,64}")


@dataclasses.dataclass(frozen=True)
class _Options:
    audit_dir: str | None = flag_field(
        None, "Folder of an audit, made with --run_dir where it has none, or of suggested photos."
    )
    run_dir: str | None = flag_field(None, "Folder of the finished run to audit.")
    reviewer: str = flag_field("me", "Name of the reviewer, a part of the file's name.")
    port: int = flag_field(
        0, "Port of 127.0.0.1 to listen on, 0 for any that is free.", int, low=0, high=65535
    )
    merge: str | None = flag_field(None, "Comma-separated files of reviewed labels.")
    output_dir: str | None = flag_field(None, "Folder for the merged labels.")
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    shown: int = flag_field(
        100, "How many of each kind to show on the page of a new audit.", int, low=1
    )
    batch_size: int = flag_field(32, "Images at a time, for a new audit.", int, low=1)
    plugins: str | None = plugins_field()


def _merge(options: _Options, merge: str) -> None:
    """Writes what several reviewers agree on, and what they do not."""
    from spml_tf.datasets import reviewed_merging

    if not options.output_dir:
        raise UserError("--output_dir is missing; see --help")
    if options.audit_dir or options.run_dir:
        raise UserError("--merge, --audit_dir, --run_dir: merge files, or review; drop one")
    paths = split_names("merge", merge)
    merged = reviewed_merging.write_merged(paths, Path(options.output_dir))
    print(f"{len(merged.agreed)} labels agreed, {merged.shared} of them by two reviewers or more")
    print(f"{len(merged.disagreements)} disagreements")
    print(f"results in {options.output_dir}")


def _audit_folder(options: _Options) -> Path:
    """The folder of the audit, which is made where it is missing."""
    from spml_tf.pages.review_server import page_of

    if options.run_dir is None:
        return Path(options.audit_dir or "")
    folder = Path(options.audit_dir or Path(options.run_dir) / "audit")
    page = page_of(folder)
    if page.exists():
        _check_run(page, options.run_dir)
        return folder
    import_tensorflow()
    from spml_tf.pages.audit import MOST, audit_run
    from spml_tf.runs.run_folder import RunFolder

    most = max(MOST, options.shown)
    run = RunFolder(options.run_dir)
    audit_run(run, folder, options.data_dir, most, options.shown, options.batch_size)
    return folder


def _check_run(page: Path, run_dir: str) -> None:
    """Refuses the audit or the suggestions of another run."""
    from spml_tf.system.json_text import parse_document
    from spml_tf.system.text_files import read_text

    path, folder = page.with_suffix(".json"), page.parent
    facts = parse_document(path, read_text(path), "choose another --audit_dir")
    audited = facts.get("run_dir") if isinstance(facts, dict) else None
    # In its place it is the run's, wherever that was moved to.
    in_place = folder.resolve() == Path(run_dir, "audit").resolve()
    if not in_place and (
        not isinstance(audited, str) or Path(audited).resolve() != Path(run_dir).resolve()
    ):
        raise UserError(
            f"--audit_dir={folder}: is not known to be of {run_dir}; choose another folder, "
            "or drop --run_dir to review what it holds"
        )


def _serve(folder: Path, reviewer: str, port: int) -> None:
    from spml_tf.datasets.reviewed_files import Journal
    from spml_tf.pages.review_server import ReviewServer, listed_labels

    listed_labels(folder)  # before a file is made in a folder of something else
    path = folder / f"reviewed_{reviewer}.csv"
    with Journal.opened(path) as journal:
        with ReviewServer(folder, journal, port) as server:
            try:
                print(f"{len(journal.decisions())} labels decided in {path}")
                print(f"open {server.url} in a browser; Ctrl-C ends it", flush=True)
                server.serve_forever()
            except KeyboardInterrupt:
                pass
        print(f"\n{len(journal.decisions())} labels decided in {path}")


def _action(options: _Options) -> None:
    if options.merge:
        _merge(options, options.merge)
        return
    if not (options.audit_dir or options.run_dir):
        raise UserError("--audit_dir is missing; see --help")
    if options.output_dir:
        raise UserError("--output_dir: is for --merge; --audit_dir names an audit's folder")
    if not _REVIEWER.fullmatch(options.reviewer):
        raise UserError(
            f"--reviewer={options.reviewer}: must be letters, digits, - and _, at most 64"
        )
    _serve(_audit_folder(options), options.reviewer, options.port)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
