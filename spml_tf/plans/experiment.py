"""A plan at work in its folder: search, runs, tables, figure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from spml_tf.plans import paired_differences, result_tables, search_results, table_facts
from spml_tf.plans.commits import Commits
from spml_tf.plans.plan import Plan, Run, runs, search_runs, selected_rows
from spml_tf.plans.plan_files import read_plan
from spml_tf.plans.settings import PlanSettings
from spml_tf.plans.training_queue import Job, check_folders, work
from spml_tf.runs.run_folder import RunFolder
from spml_tf.runs.settings import resolve
from spml_tf.system import gpus, presets
from spml_tf.system.errors import Terminated, UserError
from spml_tf.system.files import (
    check_unedited,
    naming_unwritable,
    replaced_unless_edited,
    write_json,
    write_table,
    write_text,
)
from spml_tf.system.flag_checks import check_bounds
from spml_tf.system.flag_words import split_names
from spml_tf.system.locks import locked


class Experiment:
    """A plan, how it is run, and the files of its folder.

    Args:
        settings: how it is run.

    Raises:
        UserError: a number out of bounds, a plan that cannot be read, or a run of it that cannot
            be; nothing is run then.

    Examples:
        >>> from spml_tf.plans.settings import PlanSettings
        >>> one = Experiment(PlanSettings(plan="table1_digits", output_dir="results/digits"))
        >>> one.table.name, len(one.plan.rows) > 10
        ('table1_digits.md', True)
    """

    def __init__(self, settings: PlanSettings) -> None:
        check_bounds(settings)
        self.settings = settings
        self.plan: Plan = read_plan(presets.plan(settings.plan))
        self.folder = Path(settings.output_dir).absolute()
        self._rows = selected_rows(self.plan, settings.only)
        self._chosen: dict[str, dict[str, str]] = {}
        self._commits = Commits(self.folder)
        earlier = split_names("searched", settings.searched)
        self._earlier = search_results.read(self.plan, earlier)
        trials = [run for run in search_runs(self.plan) if run.row not in self._earlier]
        self._trials = self._jobs(trials, "search")
        self._jobs(runs(self.plan), "runs")  # what cannot be is told before anything is run

    @property
    def table(self) -> Path:
        """The Markdown table, which is there as soon as a run is finished."""
        return self._result(".md")

    def run(self) -> dict[str, str]:
        """Searches, trains what is not finished, and writes tables and figure.

        Returns:
            Why runs failed, by name.

        Raises:
            UserError: the folder is another process', or holds other runs or edited tables.
            KeyboardInterrupt: interrupted or terminated; the same call goes on.
        """
        self._check_gpus()
        with self._locked():
            self._check()
            try:
                failures = self._search() if self.plan.search else {}
                return failures | self._train()
            except (KeyboardInterrupt, Terminated):  # told alike: the runs are saved in both cases
                going_on = "the same command goes on where this one stopped"
                raise KeyboardInterrupt(going_on) from None

    def finished(self) -> list[tuple[Run, RunFolder]]:
        """The runs that the table is of, and their folders."""
        return [(run, job.folder) for run, job in self._ready() if job.folder.is_finished()]

    def _result(self, ending: str) -> Path:
        """A file of results, named as the plan is."""
        return self.folder / (Path(self.settings.plan).stem + ending)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        place = f"--output_dir={self.folder}"
        with contextlib.ExitStack() as held:
            with naming_unwritable(place):
                refusal = f"{place}: another process works here"
                held.enter_context(locked(self.folder / ".lock", refusal))
            yield

    def _check_gpus(self) -> None:
        """Refuses more workers or devices than each of several runs at a time sees GPUs."""
        processes, found = self.settings.processes, gpus.count()
        if processes == 1 or not found:
            return
        each = max(found // processes, 1)
        for name in ("workers", "devices"):
            wanted = getattr(self.settings, name)
            if wanted > each:
                raise UserError(
                    f"--{name}={wanted}: with --processes={processes} a run sees {each} GPUs; "
                    "lower one of them"
                )

    def _check(self) -> None:
        """Refuses a folder of other runs than the plan's, and one whose tables were edited."""
        check_unedited([self._result(".csv"), self.table])
        check_folders([job for _, job in self._trials])
        self._choose()
        check_folders([job for _, job in self._ready()])

    def _jobs(self, found: Iterable[Run], place: str) -> list[tuple[Run, Job]]:
        """Runs and their jobs, their settings checked."""
        given, jobs = self.settings, []
        others = {name: getattr(given, name) for name in ("data_dir", "threads", "plugins")}
        others |= {name: getattr(given, name) or None for name in ("devices", "workers")}
        others["strategy"] = given.strategy if given.strategy != "none" else None
        for run in found:
            after = RunFolder(self.folder / place / run.after) if run.after else None
            banks = str(after.path) if after else None
            try:
                settings = resolve(run.settings(initial_banks=banks, **others))
            except UserError as error:
                raise UserError(f"{given.plan}: {run.name}: {error}") from None
            log = self.folder / "logs" / place / f"{run.name}.log"
            folder = RunFolder(self.folder / place / run.name)
            jobs.append((run, Job(run.name, settings, folder, log, after)))
        return jobs

    def _ready(self) -> list[tuple[Run, Job]]:
        """The runs whose flags are known: where the plan has a search, those it has chosen for."""
        found = runs(self.plan, self._chosen)
        if self.plan.search:
            known = {x.name for x in self.plan.rows if self.plan.leader(x).name in self._chosen}
            found = [run for run in found if run.row in known]
        return self._jobs(found, "runs")

    def _work(
        self, found: Iterable[tuple[Run, Job]], after: Callable[[], object]
    ) -> dict[str, str]:
        """Trains those of the rows to run; returns why runs failed, by name.

        Args:
            found: runs and their jobs.
            after: called whenever one is finished.
        """
        return work(
            [job for run, job in found if run.row in self._rows],
            self.settings.processes,
            starting=lambda job: self._commits.add(job.folder.path),
            finished=lambda job: after(),
        )

    def _search(self) -> dict[str, str]:
        """Runs the trials and chooses; returns the failures."""
        failures = self._work(self._trials, lambda: None)
        write_json(self._result("_search.json"), self._choose())
        check_folders([job for _, job in self._ready()])
        return failures

    def _choose(self) -> dict[str, search_results.Entry]:
        """Chooses for the rows whose trials are all finished; returns what the searches found."""
        record = {}
        for row in self.plan.rows:
            finished = [
                (dict(run.trial), job.folder.read_metrics().get("val", {}).get("map"))
                for run, job in self._trials
                if run.row == row.name and job.folder.is_finished()
            ]
            if row.name in self._earlier:
                record[row.name] = self._earlier[row.name]
            elif finished:
                record[row.name] = search_results.entry(row, finished)
        self._chosen = {name: x["chosen"] for name, x in record.items() if x["chosen"]}
        return record

    def _train(self) -> dict[str, str]:
        """Runs the rows; those whose search failed are left out. Returns the failures."""
        try:
            return self._work(self._ready(), self._write)
        finally:  # so that what is interrupted leaves a figure and differences of its own table
            if self._write(with_differences=True):
                self._draw()

    def _csv_rows(self, finished: Iterable[tuple[Run, RunFolder]]) -> list[dict[str, Any]]:
        commits = self._commits.read()
        searched = dict.fromkeys(name for row in self.plan.rows for name in row.grid)
        columns = [*filter(None, [self.plan.vary]), *self.plan.along, *searched]
        return [
            result_tables.csv_row(
                run, folder, columns, " ".join(commits.get(f"runs/{run.name}", ["unknown"]))
            )
            for run, folder in finished
        ]

    def _write(self, with_differences: bool = False) -> bool:
        """Writes CSV and Markdown; whether there are any results."""
        finished = self.finished()
        rows = self._csv_rows(finished)
        if not rows:
            return False
        write_table(self._result(".csv"), rows, replaced_unless_edited)
        facts = table_facts.facts(self.settings, rows, [folder for _, folder in finished])
        if self._chosen:
            trials = [job.folder for _, job in self._trials if job.folder.is_finished()]
            facts += table_facts.facts_of_search(trials, self._chosen, self._earlier)
        text = result_tables.markdown(self.plan, result_tables.lines(self.plan, rows), facts)
        if with_differences:  # takes a second a row
            found = paired_differences.differences(self.plan, finished)
            text += paired_differences.markdown(self.plan, found)
        write_text(self.table, text, replaced_unless_edited)
        return True

    def _draw(self) -> None:
        table = result_tables.lines(self.plan, self._csv_rows(self.finished()))
        result_tables.draw(self._result(""), self.plan, table)
