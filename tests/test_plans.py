"""Plans: what a file may say, the runs and trials that follow from it."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from made_plans import plan_of, row

from spml_tf.plans.plan import Search, runs, search_runs, selected_rows
from spml_tf.plans.plan_files import read_plan
from spml_tf.runs.settings import resolve
from spml_tf.system.errors import UserError
from spml_tf.training import methods

PLANS = Path(__file__).parent.parent / "experiments"
TOP = 'title = "t"\nseeds = [0]\n'
AN = '[[rows]]\nname = "an"\nmethod = "an"\n'
EN = '[[rows]]\nname = "en"\nmethod = "en"\n'
SEARCH = "[search]\nseed = 0\nepochs = 2\nflag_grid = { learning_rate = [0.1, 0.2] }\n"
LONG = "flags = { epochs = 4 }\n"
VARY = "vary = { epochs = [1, 2] }\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"no.toml: cannot be read \(No such file or directory\); "):
        read_plan(str(tmp_path / "no.toml"))


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
    (TOP + 'compare = [["an", "en"]]\n' + AN, "compare: ['an', 'en']: give pairs of rows"),
    (TOP + 'compare = ["an"]\n' + AN, "compare: 'an': give pairs of rows"),
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
        "vary: one flag at a time, found epochs, learning_rate; what changes with it goes in along",
    ),
    (TOP + "along = { epochs = [3] }\n" + AN, "along: needs vary"),
    (TOP + VARY + "along = { epochs = [3, 3] }\n" + AN, "along.epochs: is the flag that vary is"),
    (TOP + VARY + "along = { classes = 3 }\n" + AN, "along.classes: give a list of val"),
    (TOP + VARY + "along = { seed = [1, 2] }\n" + AN, "along.seed: not here; it follows"),
    (
        TOP + VARY + "along = { learning_rate = [0.1] }\n" + AN,
        "along.learning_rate: 1 values; give as many as vary.epochs has, 2",
    ),
    (
        TOP + VARY + "along = { learning_rate = [1, 2] }\n" + SEARCH + AN + LONG,
        "rows[0]: learning_rate is not a flag to search",
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
        methods.parts_of(settings.method)
        assert settings.linear_probe or settings.warmup_epochs < settings.epochs
    assert f"--plan=experiments/{path.name} " in path.read_text()
    assert f"`{path.name}`" in (PLANS / "README.md").read_text()


# -- runs ----------------------------------------------------------------------------------------


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


def test_flags_along_with_the_varied_one(tmp_path):
    """50 images for 212 epochs, 834 for 16: the same steps; a chosen flag and seed stay."""
    text = TOP + EN + AN + "flags = { epochs = 3, batch_size = 8 }\n"
    text += (
        "[vary]\ntrain_images = [50, 834]\n[along]\nepochs = [212, 16]\nwarmup_epochs = [2, 2]\n"
    )
    plan = read_plan(written(tmp_path, text))
    assert [run.name for run in runs(plan)] == ["en_50_0", "en_834_0", "an_50_0", "an_834_0"]
    assert [run.flags for run in runs(plan)][2:] == [
        {"batch_size": "8", "train_images": images, "epochs": epochs, "warmup_epochs": "2"}
        | {"method": "an", "seed": "0"}
        for images, epochs in (("50", "212"), ("834", "16"))
    ]


@given(
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    follows=st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=5),
    values=st.lists(st.integers(1, 99), max_size=3, unique=True),
)
@examples(max_examples=60)
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
        row("p", "ignore", grid=grid, epochs=50),
        row("z", after="a", epochs=50),
    )
    found = search_runs(plan_of(*rows, seeds=(0, 1), search=Search(7, 17)))
    assert [run.name for run in found[:4]] == [
        "a_learning_rate-0.1_batch_size-4", "a_learning_rate-0.1_batch_size-8",
        "a_learning_rate-0.2_batch_size-4", "a_learning_rate-0.2_batch_size-8",
    ]  # fmt: skip
    assert [run.row for run in found] == [name for name in "almop" for _ in range(4)]
    assert found[1].trial == {"learning_rate": "0.1", "batch_size": "8"}
    assert found[1].flags == {
        "epochs": "17", "warmup_epochs": "3", "selection_start_epoch": "5", "method": "en",
        "consistency_start_epoch": "2", "learning_rate": "0.1", "batch_size": "8", "seed": "7",
    }  # fmt: skip
    assert float(found[4].flags["large_loss_rate"]) == pytest.approx(0.588235, abs=1e-6)
    assert float(found[8].flags["large_loss_rate"]) == pytest.approx(1.176471, abs=1e-6)
    assert found[12].flags["selection_start_epoch"] == "1"
    assert found[16].flags["ignore_warmup_epochs"] == "1"  # of 3 that are not given
    assert search_runs(plan_of(*rows)) == []


def test_rows_are_selected_by_name_or_method():
    plan = plan_of(row("a", "an"), row("b", "en"), row("c", "en", "b"), row("d", "en+scl", "c"))
    assert selected_rows(plan, None) == {"a", "b", "c", "d"}
    assert selected_rows(plan, "d") == {"b", "c", "d"}
    assert selected_rows(plan, "an, en") == {"a", "b", "c"}
    named = plan_of(row("en", "en"), row("x", "en"))
    assert selected_rows(named, "en") == {"en"}
    with pytest.raises(UserError, match="--only=x: there is no row or method 'x'; rows: a, b, c"):
        selected_rows(plan, "x")


def test_shortened_epochs_are_rounded():
    """50 epochs to 17, ratio 0.34: 5 epochs are 1.7, start 6 is 1 + 5 x 0.34 = 2.7."""
    given = {"epochs": 50, "warmup_epochs": 5, "selection_start_epoch": 6}
    plan = plan_of(row("a", grid={"learning_rate": ("0.1",)}, **given), search=Search(7, 17))
    flags = search_runs(plan)[0].flags
    assert (flags["warmup_epochs"], flags["selection_start_epoch"]) == ("2", "3")
