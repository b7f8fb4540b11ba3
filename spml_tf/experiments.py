"""Runs a plan of runs: `python -m spml_tf.experiments --plan=FILE --output_dir=DIR`."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import spml_tf
from spml_tf.datasets.settings import check_range
from spml_tf.plans.plan import Plan, Run, runs, search_runs, selected_rows
from spml_tf.plans.plan_files import read_plan
from spml_tf.plans.training_queue import Job, check_folders, work
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import resolve
from spml_tf.system import cli, presets
from spml_tf.system.errors import Terminated, UserError
from spml_tf.system.files import (
    check_unedited,
    naming_unwritable,
    replaced_unless_edited,
    write_json,
    write_table,
    write_text,
)
from spml_tf.system.json_text import parse_json
from spml_tf.system.locks import locked
from spml_tf.system.text_files import read_text

USAGE = """Trains the runs of a plan, one process each, and writes their table.

usage: python -m spml_tf.experiments --plan=FILE --output_dir=DIR [--flag=value ...]

DIR gets the plan's results: a CSV (a row a run) and a Markdown table, both anew after every run, a
figure at the end (PNG, SVG), all named as the plan is; the runs in runs/, those of its search in
search/, their output in logs/. The same command goes on where it stopped. Plans may share DIR: a
run that two of them name alike, with the same flags, is trained once."""


@dataclasses.dataclass(frozen=True)
class _Options:
    plan: str = cli.flag_field(
        None,
        "TOML file, or the name of one that comes with spml_tf, such as table1_digits; "
        "experiments/README.md says what is in it.",
        required=True,
    )
    list_presets: bool = cli.list_presets_field(presets.plans)
    output_dir: str = cli.flag_field(None, "Folder for runs and results.", required=True)
    data_dir: str | None = cli.flag_field(None, "--data_dir of every run.")
    processes: int = cli.flag_field(1, "Runs trained at a time.", int)
    threads: int = cli.flag_field(1, "CPU threads of each run; 0: all.", int)
    only: str | None = cli.flag_field(
        None, "Comma-separated rows or methods: run these, and the rows they follow, only."
    )
    plugins: str | None = cli.plugins_field()
    strategy: str = cli.strategy_field()
    devices: int = cli.devices_field()
    workers: int = cli.workers_field()


class _Experiment:
    """A plan, the options, and the folder's files."""

    def __init__(self, options: _Options) -> None:
        self.options = options
        self.plan: Plan = read_plan(presets.plan(options.plan))
        self.folder = Path(options.output_dir).absolute()
        self.chosen: dict[str, dict[str, str]] = {}
        self.rows = selected_rows(self.plan, options.only)
        self.trials = self.jobs(search_runs(self.plan), "search")
        self.jobs(runs(self.plan), "runs")  # what cannot be is told before anything is run

    def jobs(self, found: Iterable[Run], place: str) -> list[tuple[Run, Job]]:
        """Runs and their jobs, their settings checked."""
        jobs = []
        for run in found:
            after = RunFolder(self.folder / place / run.after) if run.after else None
            others = {x: getattr(self.options, x) for x in ("data_dir", "threads", "plugins")}
            devices = {x: getattr(self.options, x) or None for x in ("devices", "workers")}
            if self.options.strategy != "none":
                devices["strategy"] = self.options.strategy
            try:
                settings = resolve(
                    run.settings(
                        initial_banks=str(after.path) if after else None, **others, **devices
                    )
                )
            except UserError as error:
                raise UserError(f"{self.options.plan}: {run.name}: {error}") from None
            log = self.folder / "logs" / place / f"{run.name}.log"
            folder = RunFolder(self.folder / place / run.name)
            jobs.append((run, Job(run.name, settings, folder, log, after)))
        return jobs

    def ready(self) -> list[tuple[Run, Job]]:
        """The runs whose flags are known: where the plan has a search, those it has chosen for."""
        found = runs(self.plan, self.chosen)
        if self.plan.search:
            known = {x.name for x in self.plan.rows if self.plan.leader(x).name in self.chosen}
            found = [run for run in found if run.row in known]
        return self.jobs(found, "runs")

    def selected(self, found: Iterable[tuple[Run, Job]]) -> list[Job]:
        """The jobs of the rows to run."""
        return [job for run, job in found if run.row in self.rows]

    def check(self) -> None:
        """Refuses a folder of other runs than the plan's, and one whose tables were edited."""
        check_unedited([self.result(".csv"), self.result(".md")])
        check_folders([job for _, job in self.trials])
        self.choose()
        check_folders([job for _, job in self.ready()])

    def commits(self) -> dict[str, list[str]]:
        """The versions of the code that each run was started with, by its folder."""
        path = self.folder / "commits.json"
        if not path.exists():
            return {}
        try:
            found = parse_json(read_text(path))
            return {str(name): [str(x) for x in commits] for name, commits in found.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); remove it, the runs' code is then unknown"
            ) from None

    def record_commit(self, job: Job) -> None:
        """Notes which code a process was started with; a run that was removed begins anew."""
        path = self.folder / "commits.json"
        found = self.commits()
        key, commit = str(job.folder.path.relative_to(self.folder)), _commit()
        before = found.get(key, []) if job.folder.path.exists() else []
        found[key] = before if commit in before else [*before, commit]
        write_json(path, found)

    def search(self) -> dict[str, str]:
        """Runs the trials and chooses; returns the failures."""
        jobs = self.selected(self.trials)
        failures = work(jobs, self.options.processes, self.record_commit, lambda job: None)
        write_json(self.result("_search.json"), self.choose())
        check_folders([job for _, job in self.ready()])
        return failures

    def choose(self) -> dict[str, Any]:
        """Chooses for the rows whose trials are all finished; returns what the search found."""
        record: dict[str, Any] = {}
        for run, job in self.trials:
            if job.folder.is_finished():
                value = job.folder.read_metrics().get("val", {}).get("map")
                entry = record.setdefault(run.row, {"chosen": None, "trials": []})
                entry["trials"].append({"flags": dict(run.trial), "val_map": value})
        for row in self.plan.rows:
            if row.name in record and len(record[row.name]["trials"]) == row.trials():
                best = max(record[row.name]["trials"], key=lambda x: _score(x["val_map"]))
                record[row.name]["chosen"] = self.chosen[row.name] = best["flags"]
        return record

    def result(self, ending: str) -> Path:
        """A file of results, named as the plan is."""
        return self.folder / (Path(self.options.plan).stem + ending)

    def train(self) -> dict[str, str]:
        """Runs the rows; those whose search failed are left out. Returns the failures."""
        jobs = self.selected(self.ready())
        try:
            return work(jobs, self.options.processes, self.record_commit, lambda _: self.write())
        finally:  # so that what is interrupted leaves a figure and differences of its own table
            if self.write(with_differences=True):
                self.draw()

    def finished(self) -> list[tuple[Run, RunFolder]]:
        """The runs that the table is of, and their folders."""
        return [(run, job.folder) for run, job in self.ready() if job.folder.is_finished()]

    def csv_rows(self, finished: Iterable[tuple[Run, RunFolder]]) -> list[dict[str, Any]]:
        from spml_tf.plans import result_tables

        commits = self.commits()
        searched = dict.fromkeys(name for row in self.plan.rows for name in row.grid)
        columns = [*filter(None, [self.plan.vary]), *self.plan.along, *searched]
        return [
            result_tables.csv_row(
                run, folder, columns, " ".join(commits.get(f"runs/{run.name}", ["unknown"]))
            )
            for run, folder in finished
        ]

    def write(self, with_differences: bool = False) -> bool:
        """Writes CSV and Markdown; whether there are any results."""
        from spml_tf.plans import paired_differences, result_tables

        finished = self.finished()
        rows = self.csv_rows(finished)
        if rows:
            write_table(self.result(".csv"), rows, replaced_unless_edited)
            facts = self.facts(rows, [folder for _, folder in finished])
            text = result_tables.markdown(self.plan, result_tables.lines(self.plan, rows), facts)
            if with_differences:  # takes a second a row
                found = paired_differences.differences(self.plan, finished)
                text += paired_differences.markdown(self.plan, found)
            write_text(self.result(".md"), text, replaced_unless_edited)
        return bool(rows)

    def draw(self) -> None:
        from spml_tf.plans import result_tables

        table = result_tables.lines(self.plan, self.csv_rows(self.finished()))
        result_tables.draw(self.result(""), self.plan, table)

    def _other_flags(self) -> str:
        """What else was given that changes the runs, as the command line has it.

        Not --only: the table is the plan's, in however many parts it was run.
        """
        found = ""
        for field in dataclasses.fields(_Options):
            value = getattr(self.options, field.name)
            if field.name in ("plugins", "strategy", "devices", "workers"):
                if field.name == "plugins" and value:
                    value = ",".join(_shown(x) if "/" in x else x for x in value.split(","))
                found += f" --{field.name}={value}" if value != field.default else ""
        return found

    def facts(self, rows: Sequence[Mapping[str, Any]], folders: Sequence[RunFolder]) -> list[str]:
        """What stands above the table."""
        from spml_tf.plans import result_tables

        options = self.options
        data_dir = " --data_dir=DATA_DIR" if options.data_dir else ""
        command = (
            f"python -m spml_tf.experiments --plan={_shown(options.plan)} --output_dir=DIR"
            f"{data_dir} --processes={options.processes} --threads={options.threads}"
            f"{self._other_flags()}"
        )
        machines = dict.fromkeys(_machine(folder.read_record()) for folder in folders)
        trained = sum(row["seconds"] for row in rows)
        trials = [job.folder for _, job in self.trials if job.folder.is_finished()]
        facts = [
            f"`{command}`",
            f"Commit: {', '.join(dict.fromkeys(row['commit'] for row in rows))}",
            f"Machine: {'; '.join(machines)}",
            f"{len(rows)} runs, {_duration(trained)} of training in all",
        ]
        facts += result_tables.known_labels(folders)
        if self.chosen:
            searched = sum(map(result_tables.seconds, trials))
            facts.append(f"Search: {len(trials)} runs, {_duration(searched)}")
            words = [f"{row} {_words(flags)}" for row, flags in self.chosen.items()]
            facts.append(f"Chosen on validation: {'; '.join(words)}")
        return facts


def _score(value: float | None) -> float:
    return float("-inf") if value is None else value


def _words(flags: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in flags.items())


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def _shown(path: str) -> str:
    """The path seen from here, so that a table names no folder of one machine."""
    given, here = Path(path).absolute(), Path.cwd()
    return str(given.relative_to(here)) if given.is_relative_to(here) else given.name


def _machine(record: Mapping[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    gpus = f", {len(machine['gpus'])} GPUs" if machine["gpus"] else ""
    return (
        f"{machine['cores']} cores of {machine['processor']}{gpus}, TensorFlow "
        f"{versions['tensorflow']}, Keras {versions['keras']}"
    )


def _commit() -> str:
    """The commit of the package's repository, + after it where files differ, or the version."""
    here = Path(spml_tf.__file__).parent

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)

    with contextlib.suppress(OSError):
        if git("ls-files", "--error-unmatch", "__init__.py").returncode == 0:
            changed = git("diff", "--quiet", "HEAD", "--", ".").returncode != 0
            return git("rev-parse", "--short=12", "HEAD").stdout.strip() + "+" * changed
    return f"version {spml_tf.__version__}"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        with naming_unwritable(f"--output_dir={folder}"):
            refusal = f"--output_dir={folder}: another process works here"
            held.enter_context(locked(folder / ".lock", refusal))
        yield


def _action(options: _Options) -> None:
    check_range("processes", options.processes, 1, 1024)
    check_range("threads", options.threads, 0, 1024)
    cli.import_tensorflow()  # refuses another backend, of which every run would tell
    experiment = _Experiment(options)
    with _locked(experiment.folder):
        experiment.check()
        try:
            failures = experiment.search() if experiment.plan.search else {}
            failures |= experiment.train()
        except (KeyboardInterrupt, Terminated):  # told alike: the runs are saved in both cases
            raise KeyboardInterrupt("the same command goes on where this one stopped") from None
    if experiment.finished():
        print(f"results in {experiment.result('.md')}")
    if failures:
        for name, reason in failures.items():
            print(f"failed {name}: {reason}", file=sys.stderr)
        raise UserError(f"{len(failures)} runs failed; the same command tries them again")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `cli.run` for the exit codes."""
    return cli.run(argv, _Options, USAGE, _action, tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
