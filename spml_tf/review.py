"""Labels decided in a browser and kept on the disk: `python -m spml_tf.review --audit_dir=DIR`."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from spml_tf.pages import BATCH_SIZE, LISTED, SHOWN
from spml_tf.system import cli
from spml_tf.system.errors import UserError
from spml_tf.system.flag_fields import flag_field, plugins_field, words_of
from spml_tf.system.flag_words import split_names
from spml_tf.system.notes import tell_note
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
# Flags by which a new audit is made, and what each flag is for.
_OF_NEW_AUDIT = ("data_dir", "shown", "batch_size", "plugins")
_ONLY = {
    "output_dir": ("merge",),
    **dict.fromkeys(("reviewer", "port"), ("audit_dir", "run_dir")),
    **dict.fromkeys(_OF_NEW_AUDIT, ("run_dir",)),
}


@dataclasses.dataclass(frozen=True)
class _Options:
    audit_dir: str | None = flag_field(
        None, "Folder of an audit, made with --run_dir where it has none, or of suggested photos."
    )
    run_dir: str | None = flag_field(None, "Folder of the finished run to audit.")
    # None where not given, to tell flags that are for something else.
    reviewer: str | None = flag_field(
        None, "Name of the reviewer, a part of the file's name. Default: me."
    )
    port: int | None = flag_field(
        None,
        "Port of 127.0.0.1 to listen on, 0 for any that is free. Default: 0.",
        int,
        low=0,
        high=65535,
    )
    merge: str | None = flag_field(None, "Comma-separated files of reviewed labels.")
    output_dir: str | None = flag_field(None, "Folder for the merged labels.")
    data_dir: str | None = flag_field(
        None, "Folder of the data set, where it is not the run's own."
    )
    shown: int | None = flag_field(
        None,
        f"How many of each kind to show on the page of a new audit. Default: {SHOWN}.",
        int,
        low=1,
    )
    batch_size: int | None = flag_field(
        None, f"Images at a time, for a new audit. Default: {BATCH_SIZE}.", int, low=1
    )
    plugins: str | None = plugins_field()


def _merge(options: _Options, merge: str) -> None:
    """Writes what several reviewers agree on, and what they do not."""
    from spml_tf.datasets import reviewed_merging

    if not options.output_dir:
        raise UserError("--output_dir is missing; see --help")
    paths = split_names("merge", merge)
    merged = reviewed_merging.write_merged(paths, Path(options.output_dir))
    print(f"{len(merged.agreed)} labels agreed, {merged.shared} of them by two reviewers or more")
    print(f"{len(merged.disagreements)} disagreements")
    print(f"results in {options.output_dir}")


def _audit_folder(options: _Options) -> Path:
    """The folder of the audit, which is made where it is missing."""
    from spml_tf.pages.review_server import page_of

    if not options.run_dir:
        return Path(options.audit_dir or "")
    folder = Path(options.audit_dir or Path(options.run_dir) / "audit")
    page = page_of(folder)
    if page.exists():
        _check_run(page, options.run_dir)
        for flag in words_of(options, _OF_NEW_AUDIT):
            tell_note(f"{flag} has no effect: {page} is there; for a new audit name another folder")
        return folder
    import_tensorflow()
    from spml_tf.pages.audit import audit_run
    from spml_tf.runs.run_folder import RunFolder

    shown = options.shown or SHOWN
    run = RunFolder(options.run_dir)
    audit_run(
        run, folder, options.data_dir, max(LISTED, shown), shown, options.batch_size or BATCH_SIZE
    )
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


def _check_mode(options: _Options) -> None:
    """Refuses flags that are for something else."""
    mode = "merge" if options.merge else "run_dir" if options.run_dir else "audit_dir"
    if mode == "merge" and (options.audit_dir or options.run_dir):
        raise UserError("--merge, --audit_dir, --run_dir: merge files, or review; drop one")
    for flag, modes in _ONLY.items():
        if mode not in modes and getattr(options, flag) not in (None, ""):
            others = " and ".join(f"--{other}" for other in modes)
            raise UserError(f"--{flag}: is for {others}, not for --{mode}; leave it out")


def _action(options: _Options) -> None:
    if not (options.merge or options.audit_dir or options.run_dir):
        raise UserError("--audit_dir is missing; see --help")
    _check_mode(options)
    if options.merge:
        _merge(options, options.merge)
        return
    reviewer = "me" if options.reviewer is None else options.reviewer
    if not _REVIEWER.fullmatch(reviewer):
        raise UserError(f"--reviewer={reviewer}: must be letters, digits, - and _, at most 64")
    _serve(_audit_folder(options), reviewer, options.port or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
