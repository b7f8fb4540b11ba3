"""Plans and their runner: what a plan may say, its runs, tables, resumption, refusals."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from conftest import command, flags
from conftest import run as run_command
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from spml_tf import experiments, methods
from spml_tf.errors import UserError
from spml_tf.plan_files import read_plan
from spml_tf.plans import Plan, Row, Search, runs, search_runs, selected_rows
from spml_tf.reports import tables
from spml_tf.runs import RunFolder
from spml_tf.settings import resolve

PLANS = Path(__file__).parent.parent / "experiments"
TOP = 'title = "t"\nseeds = [0]\n'
AN = '[[rows]]\nname = "an"\nmethod = "an"\n'
EN = '[[rows]]\nname = "en"\nmethod = "en"\n'
SEARCH = "[search]\nseed = 0\nepochs = 2\nflag_grid = { learning_rate = [0.1, 0.2] }\n"
LONG = "flags = { epochs = 4 }\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


# -- reading -------------------------------------------------------------------------------------

MISTAKES = [
    ("title = ", "not valid TOML"),
    ("seeds = [0]\n" + AN, "title: missing"),
    ('title = 3\nseeds = [0]\n' + AN, "title: must be text, found 3"),
    ('title = "a\\nb"\nseeds = [0]\n' + AN, "title: 'a\\nb' must be one line"),
    ('title = "t"\n' + AN, "seeds: missing"),
    ('title = "t"\nseeds = 3\n' + AN, "seeds: must be a list, found 3"),
    ('title = "t"\nseeds = []\n' + AN, "seeds: []: give at least one"),
    ('title = "t"\nseeds = [1, 1]\n' + AN, "seeds: [1, 1]: give at least one, each once"),
    ('title = "t"\nseeds = [-1]\n' + AN, "seeds: -1 is no seed"),
    ('title = "t"\nseeds = [true]\n' + AN, "seeds: True is no seed"),
    (TOP, "rows: missing"),
    (TOP + "rows = []", "rows: there is none"),
    (TOP + "rows = [1]", "rows[0]: must be a table"),
    (TOP + "sedes = [0]\n" + AN, "sedes: there is no such key; did you mean seeds?"),
    (TOP + "qqq = 1\n" + AN, "qqq: there is no such key; known: title, paper"),
    (TOP + '[[rows]]\nmethod = "an"', "rows[0].name: missing"),
    (TOP + '[[rows]]\nname = "an"', "rows[0].method: missing"),
    (TOP + '[[rows]]\nname = "../an"\nmethod = "an"', "rows[0].name: '../an' is no name"),
    (TOP + f'[[rows]]\nname = "{"a" * 81}"\nmethod = "an"', "rows[0].name: 'aaa"),
    (TOP + AN + AN, "rows: 'an' is there 2 times"),
    (TOP + AN + 'flag = "x"', "rows[0].flag: there is no such key; did you mean flags?"),
    (TOP + AN + "paper = 60.0", "paper: missing; say what"),
    (TOP + AN + 'paper = "60"', "rows[0].paper: must be a number, found '60'"),
    (TOP + AN + "paper = 101", "rows[0].paper: 101 is no mAP in percent"),
    (TOP + AN + "paper = nan", "rows[0].paper: nan is no mAP in percent"),
    (TOP + AN + 'after = "en"\n' + EN, "rows[0].after: no row 'en' stands before this one"),
    (TOP + AN + 'after = "an"', "rows[0].after: no row 'an' stands before this one"),
    (
        TOP + AN + EN + 'after = "an"\nflags = { initial_banks = "x" }',
        "rows[1].after: sets initial_banks",
    ),
    (TOP + AN + "flags = 3", "rows[0].flags: must be a table, found 3"),
    (TOP + AN + "flags = { epoch = 3 }", "rows[0].flags.epoch: there is no such flag; did you"),
    (TOP + AN + "flags = { qqqq = 3 }", "rows[0].flags.qqqq: there is no such flag; python -m"),
    (TOP + AN + 'flags = { epochs = "x" }', "rows[0].flags.epochs: flag --epochs=x"),
    (TOP + AN + "flags = { epochs = [1] }", "rows[0].flags.epochs: [1] must be text, a number"),
    (TOP + AN + 'flags = { classes = "a\\rb" }', "rows[0].flags.classes: 'a\\rb' must be one line"),
    (TOP + AN + 'flags = { bank_dtype = "int4" }', "rows[0].flags.bank_dtype: flag --bank_dtype"),
    (TOP + AN + "flags = { seed = 3 }", "rows[0].flags.seed: not here; it follows from seeds"),
    (TOP + AN + 'flags = { method = "en" }', "rows[0].flags.method: not here; it is a key"),
    (TOP + "[flags]\nthreads = 1\n" + AN, "flags.threads: not here; give it to the command"),
    (TOP + AN + 'flagfile = "no.flags"', "rows[0].flagfile: {folder}/no.flags: cannot be read"),
    (TOP + AN + 'flagfile = "stray.flags"', "rows[0].flagfile: 'epochs=3' is not a flag"),
    (TOP + AN + 'flagfile = "typo.flags"', "rows[0].flagfile: Unknown command line flag 'epoch'"),
    (TOP + AN + 'flagfile = "seed.flags"', "rows[0].flagfile.seed: not here"),
    (TOP + 'baseline = "an"\n' + AN, "baseline, oracle: give both"),
    (TOP + 'baseline = "an"\noracle = "an"\n' + AN, "baseline, oracle: give both, of different"),
    (TOP + 'baseline = "an"\noracle = "x"\n' + AN, "oracle: there is no row 'x'"),
    (TOP + "vary = { epochs = 3 }\n" + AN, "vary.epochs: give a list of values, found 3"),
    (TOP + "vary = { epochs = [3, 3] }\n" + AN, "vary.epochs: '3' is there 2 times"),
    (
        TOP + "vary = { epochs = [3], learning_rate = [0.1] }\n" + AN,
        "vary: one flag at a time, found epochs, learning_rate",
    ),
    (TOP + 'vary = { classes = ["a b", "a:b"] }\n' + AN, "runs: 'an_a-b_0' is there 2 times"),
    (TOP + f'vary = {{ classes = ["{"x" * 300}"] }}\n' + AN, "is too long a name for a folder"),
    (TOP + AN + "flag_grid = { epochs = [1] }", "rows[0].flag_grid: needs [search]"),
    (TOP + SEARCH + "trials = 3\n" + AN, "search.trials: there is no such key"),
    (TOP + SEARCH.replace("seed = 0", "seed = -1") + AN, "search.seed: -1 is no seed"),
    (TOP + SEARCH + AN, "search.epochs: 2 must lie between 1 and the flag epochs of rows[0], whic"),
    (
        TOP + SEARCH.replace("= 2", "= 5") + AN + LONG,
        "search.epochs: 5 must lie between 1 and the flag epochs of rows[0], 4",
    ),
    (TOP + "[search]\nseed = 0\nepochs = 2\n" + AN + LONG, "search.flag_grid: missing or empty"),
    (
        TOP + SEARCH.replace("learning_rate", "epochs").replace("0.1, 0.2", "1, 2") + AN + LONG,
        "rows[0]: epochs is not a flag to search",
    ),
    (
        TOP + SEARCH + AN + LONG + EN + LONG + "flag_grid = { consistency_weight = [1] }",
        "rows[1].flag_grid: 1 trials, the first row has 2",
    ),
    (
        TOP + SEARCH + AN + LONG + EN + LONG + 'after = "an"\nflag_grid = { learning_rate = [1] }',
        "rows[1].flag_grid: needs [search], and a row without after",
    ),
]  # fmt: skip


@pytest.mark.parametrize("text, message", MISTAKES, ids=[str(n) for n in range(len(MISTAKES))])
def test_a_mistake_is_one_line_with_file_and_key(tmp_path, text, message):
    (tmp_path / "stray.flags").write_text("epochs=3\n")
    (tmp_path / "typo.flags").write_text("--epoch=3\n")
    (tmp_path / "seed.flags").write_text("--seed=3\n")
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_plan(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    assert message.format(folder=tmp_path) in said if "{folder}" in message else message in said


def test_a_plan_that_cannot_be_read(tmp_path):
    for path, content in (("none.toml", None), ("latin.toml", b'title = "\xe9"')):
        if content:
            (tmp_path / path).write_bytes(content)
        with pytest.raises(UserError, match=path):
            read_plan(tmp_path / path)


def test_a_flagfile_says_what_it_says_to_training(tmp_path):
    """Comments, a bare and a negated bool, a value on its own line, a file within, twice."""
    (tmp_path / "inner.flags").write_text("--batch_size=7\n--epochs=3\n")
    (tmp_path / "outer.flags").write_text(
        f"# comment\n--method=en\n--keep_head\n--nohorizontal_flip\n--crop_area\n0.5,1\n"
        f"--flagfile={tmp_path / 'inner.flags'}\n--selection_budget=all\n--epochs=4\n"
    )
    text = (
        TOP + '[flags]\nselection_budget = "global"\nbatch_size = 9\nema_momentum = 0.5\n'
        '[[rows]]\nname = "a"\nflagfile = "outer.flags"\nflags = { crop_area = "0.1,1" }\n'
        '[[rows]]\nname = "b"\nflagfile = "outer.flags"\nmethod = "an"\n'
    )
    first, second = read_plan(written(tmp_path, text)).rows
    common = {
        "keep_head": "true", "horizontal_flip": "false", "batch_size": "7", "epochs": "4",
        "selection_budget": "all", "ema_momentum": "0.5",
    }  # fmt: skip
    assert first.method == "en" and first.flags == {**common, "crop_area": "0.1,1"}
    assert second.method == "an" and second.flags == {**common, "crop_area": "0.5,1"}
    given = runs(read_plan(tmp_path / "plan.toml"))[0].settings(data_dir="d", threads=None)
    assert (given.keep_head, given.horizontal_flip, given.batch_size) == (True, False, 7)
    assert (given.data_dir, given.threads, given.method, given.seed) == ("d", 0, "en", 0)


def test_the_plan_of_the_documentation(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (PLANS / "README.md").read_text(), re.S).group(1)
    shutil.copytree(PLANS / "digits", tmp_path / "digits")
    plan = read_plan(written(tmp_path, text))
    assert [row.name for row in plan.rows] == ["bce", "an", "en+scl", "en+scl_round2"]
    assert plan.rows[1].flags["crop_area"] == "0.5,1" and plan.rows[3].after == "en+scl"
    assert plan.search == Search(0, 17) and len(search_runs(plan)) == 6 and len(runs(plan)) == 8
    assert plan.paper and (plan.baseline, plan.oracle) == ("an", "bce")


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.name)
def test_the_plans_here(path, voc):
    plan = read_plan(path)
    for table in tomllib.loads(path.read_text())["rows"]:
        assert (path.parent / table["flagfile"]).is_file()
    for run in [*runs(plan), *search_runs(plan)]:
        banks = None if run.after is None else run.after
        settings = resolve(run.settings(data_dir=str(voc), initial_banks=banks))
        methods.parse_method(settings.method)
        assert settings.warmup_epochs < settings.epochs
    assert f"--plan=experiments/{path.name} " in path.read_text()
    assert f"`{path.name}`" in (PLANS / "README.md").read_text()


# -- runs ----------------------------------------------------------------------------------------


def row(name: str, method: str = "en", after: str | None = None, **others) -> Row:
    grid = others.pop("grid", {})
    return Row(name, method, {k: str(v) for k, v in others.items()}, None, after, grid)


def plan_of(*rows: Row, seeds=(0,), vary="", values=(), search=None, ends=(None, None)) -> Plan:
    return Plan("Title", "", tuple(seeds), rows, *ends, vary, tuple(values), search)


def test_runs_by_hand():
    """Two seeds, two rows, two values: 8 runs, all of the first seed before the second."""
    rows = row("a", crop_area="1,1"), row("b", "en+scl", after="a", learning_rate=0.1)
    plan = plan_of(*rows, seeds=(3, 1), vary="crop_area", values=("0.5,1", "0.25,1"))
    found = runs(plan, {"a": {"learning_rate": "0.2"}})
    assert [run.name for run in found] == [
        "a_0.5-1_3", "a_0.25-1_3", "b_0.5-1_3", "b_0.25-1_3",
        "a_0.5-1_1", "a_0.25-1_1", "b_0.5-1_1", "b_0.25-1_1",
    ]  # fmt: skip
    assert found[6].after == "a_0.5-1_1" and found[4].after is None
    # What was chosen for the row followed goes before a flag of the row's own.
    assert found[7].flags == {
        "learning_rate": "0.2", "crop_area": "0.25,1", "method": "en+scl", "seed": "1"
    }  # fmt: skip


@given(
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    follows=st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=5),
    values=st.lists(st.integers(1, 99), max_size=3, unique=True),
)
@examples(max_examples=60, deadline=None)
def test_runs_are_seeds_by_rows_by_values_and_predecessors_precede(seeds, follows, values):
    rows = [
        row(f"r{n}", after=None if back is None or not n else f"r{back % n}")
        for n, back in enumerate(follows)
    ]
    vary = {"vary": "batch_size", "values": [str(x) for x in values]} if values else {}
    plan = plan_of(*rows, seeds=seeds, **vary)
    found = runs(plan)
    assert len({run.name for run in found}) == len(found)
    assert len(found) == len(seeds) * len(rows) * (len(values) or 1)
    places = {run.name: place for place, run in enumerate(found)}
    for run in found:
        if run.after is not None:
            earlier = found[places[run.after]]
            assert places[run.after] < places[run.name]
            assert (earlier.seed, earlier.value) == (run.seed, run.value)
        assert plan.leader(next(x for x in rows if x.name == run.row)).after is None
    for name in (x.name for x in rows):
        chosen = selected_rows(plan, name)
        assert name in chosen
        assert all(x.after in chosen for x in rows if x.name in chosen and x.after)


def test_trials_are_short_versions_of_the_runs():
    """50 epochs to 17, ratio 0.34: warm-up 10 to 3.4, start 13 to 1 + 12 x 0.34 = 5.08, start 2 to
    1.34 but no earlier than the second epoch, which the banks need; a rate of 0.2 an epoch to
    0.2 / 0.34 = 0.588."""
    grid = {"learning_rate": ("0.1", "0.2"), "batch_size": ("4", "8")}
    full = {"epochs": 50, "warmup_epochs": 10, "selection_start_epoch": 13}
    rows = (
        row("a", grid=grid, consistency_start_epoch=2, **full),
        row("l", "ll_r", grid=grid, **full),
        row("m", "ll_cp+scl", grid=grid, large_loss_rate=0.4, **full),
        row("o", grid=grid, epochs=50, selection_start_epoch=1),
        row("z", after="a", epochs=50),
    )
    found = search_runs(plan_of(*rows, seeds=(0, 1), search=Search(7, 17)))
    assert [run.name for run in found[:4]] == [
        "a_learning_rate-0.1_batch_size-4", "a_learning_rate-0.1_batch_size-8",
        "a_learning_rate-0.2_batch_size-4", "a_learning_rate-0.2_batch_size-8",
    ]  # fmt: skip
    assert [run.row for run in found] == [name for name in "almo" for _ in range(4)]
    assert found[1].trial == {"learning_rate": "0.1", "batch_size": "8"}
    assert found[1].flags == {
        "epochs": "17", "warmup_epochs": "3", "selection_start_epoch": "5", "method": "en",
        "consistency_start_epoch": "2", "learning_rate": "0.1", "batch_size": "8", "seed": "7",
    }  # fmt: skip
    assert float(found[4].flags["large_loss_rate"]) == pytest.approx(0.588235, abs=1e-6)
    assert float(found[8].flags["large_loss_rate"]) == pytest.approx(1.176471, abs=1e-6)
    assert found[12].flags["selection_start_epoch"] == "1"
    assert search_runs(plan_of(*rows)) == []


def test_rows_are_selected_by_name_or_method():
    plan = plan_of(row("a", "an"), row("b", "en"), row("c", "en", "b"), row("d", "en+scl", "c"))
    assert selected_rows(plan, None) == {"a", "b", "c", "d"}
    assert selected_rows(plan, "d") == {"b", "c", "d"}
    assert selected_rows(plan, "an, en") == {"a", "b", "c"}
    with pytest.raises(UserError, match="--only=x: there is no row or method 'x'; rows: a, b, c"):
        selected_rows(plan, "x")


# -- tables --------------------------------------------------------------------------------------


def run_folder(path: Path, val: float | None, test: float | None, **given) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    values = {"dataset": "digits", "method": "en", "seed": 0, "epochs": 2, **given}
    folder.record.write_text(json.dumps({"flags": values}))
    scores = {"val": {"map": val}, "test": {"map": test}}
    folder.metrics.write_text(json.dumps({"best_epoch": 2, **scores}))
    rows = [
        {"epoch": 1, "seconds": 1.25, "selection_precision": ""},
        {"epoch": 2, "seconds": 2.5, "selection_precision": 0.75},
    ]
    folder.write_history(rows)
    return folder


def test_a_csv_row(tmp_path):
    """1.25 + 2.5 seconds are 3.75, rounded 4; a flag that a row does not set is the run's own."""
    folder = run_folder(tmp_path / "run", 70.12345, None, learning_rate=0.004)
    run = runs(plan_of(row("r"), vary="epochs", values=["2"]))[0]
    found = tables.csv_row(run, folder, ["epochs", "learning_rate"], "abc")
    assert found == {
        "dataset": "digits", "method": "en", "row": "r", "seed": 0, "val_map": 70.123,
        "test_map": "", "best_epoch": 2, "seconds": 4, "commit": "abc", "epochs": "2",
        "learning_rate": 0.004, "selection_precision": "0.75", "selection_recall": "",
    }  # fmt: skip
    # The varied flag is a column already: its text must still be found by the table.
    line = tables.lines(plan_of(row("r"), vary="epochs", values=["2"]), [found])[0]
    assert (line.value, line.seeds, line.val, line.test) == ("2", 1, (70.123, None), None)


def results(*numbers: tuple) -> list[dict]:
    return [
        {"row": name, "seed": seed, "val_map": val, "test_map": test, "crop_area": value}
        for name, seed, val, test, value in numbers
    ]


def test_the_table_by_hand():
    """an: 60, 64, mean 62, deviation sqrt(8) = 2.83; bce: 82; en: 72, half of 20 points; x has a
    seed without positives; y has not run."""
    rows = [row(n) for n in ("an", "bce", "en", "x", "y")]
    plan = plan_of(*rows, seeds=(0, 1), ends=("an", "bce"))
    found = results(
        ("an", 0, 61.0, 60.0, ""), ("an", 1, 63.0, 64.0, ""), ("bce", 0, 80.0, 82.0, ""),
        ("en", 0, 70.0, 72.0, ""), ("x", 0, 50.0, 55.0, ""), ("x", 1, "", "", ""),
    )  # fmt: skip
    table = tables.lines(plan, found)
    assert [line.gap for line in table] == [0.0, 1.0, 0.5, None]
    assert table[0].test == (62.0, pytest.approx(8**0.5))
    text = tables.markdown(plan, table, ["fact"])
    assert text.startswith("# Title\n\n- fact\n- mAP in percent")
    assert "- Gap closed: (row - an) / (bce - an).\n" in text
    assert text.splitlines()[-6:] == [
        "| row | seeds | mAP val | mAP test | gap closed |",
        "|---|---|---|---|---|",
        "| an | 2 | 62.00 ± 1.41 | 62.00 ± 2.83 | 0% |",
        "| bce | 1 of 2 | 80.00 | 82.00 | 100% |",
        "| en | 1 of 2 | 70.00 | 72.00 | 50% |",
        "| x | 2 |  |  |  |",
    ]


def test_the_table_of_a_varied_flag_with_the_papers_numbers():
    rows = Row("a|b", "en", {}, 54.0, None, {}), row("c")
    plan = Plan("T", "mAP of old", (0,), rows, None, None, "crop_area", ("1,1", "0|5"), None)
    found = results(("a|b", 0, 1.0, 2.0, "0|5"), ("a|b", 0, 3.0, 4.0, "1,1"), ("c", 0, 5, 6, "1,1"))
    text = tables.markdown(plan, tables.lines(plan, found), [])
    assert "- Paper: mAP of old." in text and "Gap" not in text
    assert text.splitlines()[-3:] == [
        "| a\\|b | 1,1 | 1 | 3.00 | 4.00 | 54.0 |",
        "| a\\|b | 0\\|5 | 1 | 1.00 | 2.00 | 54.0 |",
        "| c | 1,1 | 1 | 5.00 | 6.00 |  |",
    ]


def test_no_gap_between_equal_rows():
    plan = plan_of(row("an"), row("bce"), ends=("an", "bce"))
    table = tables.lines(plan, results(("an", 0, 5.0, 6.0, ""), ("bce", 0, 5.0, 6.0, "")))
    assert [line.gap for line in table] == [None, None]


@pytest.mark.parametrize("vary", ["", "crop_area"])
def test_figures_are_drawn_alike_each_time(tmp_path, vary):
    plan = plan_of(row("a"), row("$b_"), vary=vary, values=("1", "2") if vary else ())
    found = [
        {"row": n, "seed": s, "val_map": 50.0 + s, "test_map": "", "crop_area": v}
        for n, s, v in itertools.product(("a", "$b_"), (0, 1), plan.values or ("",))
    ]
    for name in ("one", "two"):
        tables.draw(tmp_path / name, plan, tables.lines(plan, found))
    with Image.open(tmp_path / "one.png") as image:
        assert image.format == "PNG" and len(image.convert("RGB").getcolors(1 << 24)) > 10
    assert ElementTree.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "one.png",
        "one.svg",
        "two.png",
        "two.svg",
    ]


def test_no_figure_of_nothing(tmp_path):
    plan = plan_of(row("a"))
    tables.draw(tmp_path / "x", plan, tables.lines(plan, results(("a", 0, "", "", ""))))
    assert not list(tmp_path.iterdir())


# -- the command ---------------------------------------------------------------------------------

SEARCHED = """
[search]
seed = 5
epochs = 1
flag_grid = { learning_rate = [0.001, 0.01] }
[[rows]]
name = "an"
method = "an"
[[rows]]
name = "en"
method = "en"
flag_grid = { batch_size = [5, 6] }
[[rows]]
name = "again"
method = "en"
after = "en"
"""


def tiny(voc: Path, path: Path, text: str) -> Path:
    """A plan on the tree of coloured squares."""
    words = [word.removeprefix("--").split("=", 1) for word in flags(voc, epochs=2)]
    common = [f'{k} = "{v}"' for k, v in words if k not in ("threads", "data_dir")]
    head = ['title = "Tiny"', "seeds = [0]", "[flags]", *common]
    path.write_text("\n".join(head) + "\n" + text)
    return path


def words(plan: Path, folder: Path, voc: Path, *others: str) -> list[str]:
    return [f"--plan={plan}", f"--output_dir={folder}", f"--data_dir={voc}", *others]


def main(*given: str) -> int:
    """The command in this process; the runs are processes all the same."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return experiments.main(list(given))
    finally:
        signal.signal(signal.SIGTERM, handler)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file but the lock."""
    found = {p: p.stat() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
    return {str(p.relative_to(folder)): (x.st_size, x.st_mtime_ns) for p, x in found.items()}


def children(folder: Path) -> list[int]:
    """Processes that train into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            given = path.read_bytes().decode().split("\0")
        except OSError:
            continue  # it has ended
        if any(x.startswith(f"--output_dir={folder}/") for x in given):
            found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def whole(voc, tmp_path_factory) -> Path:
    """A finished experiment: four trials, three runs."""
    folder = tmp_path_factory.mktemp("experiments")
    plan = tiny(voc, folder / "tiny.toml", SEARCHED)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(*words(plan, folder / "out", voc, "--processes=2")) == 0
    lines = said.getvalue().splitlines()
    assert len([x for x in lines if x.startswith("start ")]) == 7
    assert len([x for x in lines if x.startswith("done ")]) == 7
    assert lines[-1] == f"results in {folder / 'out' / 'tiny.md'}"
    return folder


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """The finished plan and folder again, at a place where the test may spoil it; banks are known
    by their place, so the row that follows is not in it."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "out" / "runs" / "again_0")
    return tmp_path


def table_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_finished_experiment_holds(whole):
    out = whole / "out"
    rows = table_rows(out / "tiny.csv")
    assert [row["row"] for row in rows] == ["an", "en", "again"]
    assert list(rows[0])[:9] == [
        "dataset", "method", "row", "seed", "val_map", "test_map", "best_epoch", "seconds", "commit"
    ]  # fmt: skip
    record = json.loads((out / "tiny_search.json").read_text())
    for name, flag in (("an", "learning_rate"), ("en", "batch_size")):
        trials = record[name]["trials"]
        for trial in trials:
            value = trial["flags"][flag]
            path = out / "search" / f"{name}_{flag}-{value}" / "metrics.json"
            assert trial["val_map"] == json.loads(path.read_text())["val"]["map"]
        best = max(trials, key=lambda trial: trial["val_map"])
        assert len(trials) == 2 and record[name]["chosen"] == best["flags"]
        for row in rows:
            if row["row"] in (name, "again" if name == "en" else name):
                flags_of = json.loads((out / "runs" / f"{row['row']}_0/run.json").read_text())
                assert str(flags_of["flags"][flag]) == row[flag] == best["flags"][flag]
    again = json.loads((out / "runs" / "again_0" / "run.json").read_text())["flags"]
    assert again["initial_banks"] == str(out / "runs" / "en_0")
    trial = json.loads((out / "search" / "en_batch_size-6" / "run.json").read_text())["flags"]
    assert (trial["epochs"], trial["seed"], trial["threads"]) == (1, 5, 1)
    commits = json.loads((out / "commits.json").read_text())
    assert len(commits) == 7 and rows[0]["commit"] == commits["runs/an_0"][0]
    text = (out / "tiny.md").read_text()
    assert text.startswith("# Tiny\n") and "--plan=tiny.toml --output_dir=DIR" in text
    assert str(whole) not in text and "3 runs, 0.0 hours" in text and "Search: 4 runs" in text
    with Image.open(out / "tiny.png") as image:
        assert image.format == "PNG"
    ElementTree.parse(out / "tiny.svg")


def test_a_run_is_that_of_the_training_command(whole, voc, tmp_path):
    rate = json.loads((whole / "out" / "tiny_search.json").read_text())["an"]["chosen"]
    done = run_command(
        *flags(voc, epochs=2, method="an", seed=0, **rate), f"--output_dir={tmp_path / 'r'}"
    )
    assert done.returncode == 0, done.stderr
    metrics = (tmp_path / "r" / "metrics.json").read_bytes()
    assert metrics == (whole / "out" / "runs" / "an_0" / "metrics.json").read_bytes()
    row = table_rows(whole / "out" / "tiny.csv")[0]
    assert float(row["test_map"]) == round(json.loads(metrics)["test"]["map"], 3)


def test_the_same_command_trains_nothing_again(whole, voc, capsys):
    before = contents(whole / "out")
    assert main(*words(whole / "tiny.toml", whole / "out", voc, "--processes=2")) == 0
    said = capsys.readouterr().out
    assert "4 of 4 runs are finished\n3 of 3 runs are finished\n" in said and "start" not in said
    after = contents(whole / "out")
    assert after.keys() == before.keys()
    assert {x for x in after if after[x] != before[x]} <= {
        f"tiny{ending}" for ending in (".csv", ".md", ".png", ".svg", "_search.json")
    }


@pytest.mark.parametrize(
    "old, new, difference",
    [
        ('image_size = "32"', 'image_size = "40"', "--image_size was 32 and is 40"),
        # Nothing of the search changes, and the run that does is of a row that is left out.
        ('method = "en"\nafter', 'method = "ep"\nafter', "--method was en and is ep"),
    ],
    ids=["of trials", "of a row left out"],
)
def test_a_changed_plan_is_refused(whole, voc, tmp_path, capsys, old, new, difference):
    text = (whole / "tiny.toml").read_text()
    assert text.count(old) == 1
    (tmp_path / "tiny.toml").write_text(text.replace(old, new))
    before = contents(whole / "out")
    assert main(*words(tmp_path / "tiny.toml", whole / "out", voc, "--only=an")) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and not said.out
    assert "holds a run with other flags than the plan's" in said.err and difference in said.err
    assert contents(whole / "out") == before


def test_two_commands_in_one_folder_are_refused(whole, voc, capsys):
    before = contents(whole / "out")
    with open(whole / "out" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(*words(whole / "tiny.toml", whole / "out", voc)) == 1
    error = f"error: --output_dir={whole / 'out'}: another process works here\n"
    assert capsys.readouterr().err == error
    assert contents(whole / "out") == before


def test_mistakes_on_the_command_line(whole, voc, tmp_path, capsys):
    """Each is one line, and no folder is made."""
    plan, new = whole / "tiny.toml", tmp_path / "new"
    wrong = tiny(voc, tmp_path / "wrong.toml", '[[rows]]\nname = "a"\nmethod = "anx"\n')
    range_ = tiny(
        voc, tmp_path / "r.toml", '[[rows]]\nname = "a"\nmethod = "an"\nflags.ema_momentum = 2\n'
    )
    taken = tmp_path / "file"
    taken.write_text("")
    for words_given, message in (
        ([], "--plan is missing"),
        ([f"--plan={plan}"], "--output_dir is missing"),
        ([f"--plan={plan}", f"--output_dir={new}"], f"{plan}: an_learning_rate-0.001: --data_dir"),
        (words(tmp_path / "none", new, voc), f"{tmp_path / 'none'}: cannot be read"),
        (words(plan, new, voc, "--processes=0"), "--processes=0: must lie between"),
        (words(plan, new, voc, "--only=an,x"), "there is no row or method 'x'; rows: an, en"),
        (words(wrong, new, voc), f"{wrong}: rows[0].method: "),
        (words(range_, new, voc), f"{range_}: a_0: --ema_momentum=2.0: must lie between"),
        (words(plan, taken, voc), f"--output_dir={taken}: cannot be used"),
    ):
        assert main(*words_given) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and message in said and said.count("\n") == 1
        assert not new.exists()


def test_stopped_in_any_way_it_leaves_no_run_behind_and_goes_on(copied, voc, whole, capsys):
    """kill -9 once an epoch is written, then `kill`, then Ctrl-C, then to the end, which is that of
    the run that nobody stopped."""
    out = copied / "out"
    given = words(copied / "tiny.toml", out, voc)
    kill_after_an_epoch(command(*given, module="experiments"), out / "runs" / "again_0")
    deadline = time.monotonic() + 20
    while children(out) and time.monotonic() < deadline:  # it sees that nobody waits for it
        time.sleep(0.01)
    assert not children(out) and not (out / "runs" / "again_0" / "metrics.json").exists()
    for number in (signal.SIGTERM, signal.SIGINT):
        thread = threading.Thread(target=signal_when_training, args=(out, number))
        thread.start()
        assert main(*given) == 130
        thread.join()
        assert not children(out)
        error = "interrupted: the same command goes on where this one stopped\n"
        assert capsys.readouterr().err == error
    assert main(*given) == 0
    assert "resuming after epoch" in (out / "logs" / "runs" / "again_0.log").read_text()
    for name in ("metrics.json", "flags.txt"):
        first, second = ((x / "runs" / "again_0" / name).read_text() for x in (whole / "out", out))
        assert first.replace(str(whole), str(copied)) == second


def kill_after_an_epoch(given: list[str], run_folder: Path) -> None:
    deadline = time.monotonic() + 240
    with subprocess.Popen(given, stdout=subprocess.DEVNULL) as process:
        while not RunFolder(run_folder).checkpoint.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        assert children(run_folder.parent.parent)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def signal_when_training(out: Path, number: int) -> None:
    """Sends this process a signal once a run of its own is there."""
    deadline = time.monotonic() + 60
    while not children(out) and time.monotonic() < deadline:
        time.sleep(0.01)
    if children(out):  # else the command is not there to be stopped, and pytest would be
        os.kill(os.getpid(), number)


FAILING = """
[[rows]]
name = "bad"
method = "an"
flags = { init_from = "nowhere" }
[[rows]]
name = "follower"
method = "en"
after = "bad"
[[rows]]
name = "an"
method = "an"
[[rows]]
name = "good"
method = "en"
flags = { epochs = 1 }
"""


def test_a_run_that_fails_leaves_the_others(copied, voc, capsys):
    """Another plan in the same folder: its row `an` is the run that is there."""
    rate = json.loads((copied / "out" / "tiny_search.json").read_text())["an"]["chosen"]
    own = f'name = "an"\nmethod = "an"\nflags = {{ learning_rate = {rate["learning_rate"]} }}'
    text = FAILING.replace('name = "an"\nmethod = "an"', own)
    plan, out = tiny(voc, copied / "failing.toml", text), copied / "out"
    before = contents(out)
    assert main(*words(plan, out, voc, "--processes=2")) == 1
    said = capsys.readouterr()
    assert said.out.startswith("1 of 4 runs are finished\n") and "start  an_0" not in said.out
    lines = said.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("failed bad_0: ") and "nowhere: no run here" in lines[0]
    assert lines[0].endswith(f"(log: {out / 'logs' / 'runs' / 'bad_0.log'})")
    assert lines[1] == "failed follower_0: bad_0, which it follows, failed"
    assert lines[2] == "error: 2 runs failed; the same command tries them again"
    assert [row["row"] for row in table_rows(out / "failing.csv")] == ["an", "good"]
    after = contents(out)
    assert {x for x in before if after[x] != before[x]} == {"commits.json"}


def test_only_some_rows(copied, voc, capsys):
    """A run that is missing in another row is not trained, and not in the table."""
    assert main(*words(copied / "tiny.toml", copied / "out", voc, "--only=an")) == 0
    said = capsys.readouterr().out
    assert "2 of 2 runs are finished\n1 of 1 runs are finished\n" in said
    assert [row["row"] for row in table_rows(copied / "out" / "tiny.csv")] == ["an", "en"]


def test_rows_without_a_choice_are_not_in_the_table(copied, voc):
    """A trial more is in the plan than was run: what was chosen without it counts no more."""
    path = copied / "tiny.toml"
    text = path.read_text().replace("batch_size = [5, 6]", "batch_size = [5, 6, 7]")
    path.write_text(text.replace("[0.001, 0.01]", "[0.001, 0.01, 0.1]"))
    shutil.copytree(
        copied / "out" / "search" / "an_learning_rate-0.01",
        copied / "out" / "search" / "an_learning_rate-0.1",
    )
    place = RunFolder(copied / "out" / "search" / "an_learning_rate-0.1").record
    record = json.loads(place.read_text())
    record["flags"] |= {name: 0.1 for name in ("learning_rate", "head_learning_rate")}
    record["flags"]["estimates_learning_rate"] = 1.0
    place.write_text(json.dumps(record))
    assert main(*words(path, copied / "out", voc, "--only=an")) == 0
    found = json.loads((copied / "out" / "tiny_search.json").read_text())
    assert found["an"]["chosen"] is not None and found["en"]["chosen"] is None
    assert [row["row"] for row in table_rows(copied / "out" / "tiny.csv")] == ["an"]
