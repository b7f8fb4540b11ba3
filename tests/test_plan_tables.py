"""Table, CSV and figure of a plan, by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made_plans import plan_of, row
from PIL import Image

from spml_tf.plans import result_tables
from spml_tf.plans.plan import Plan, Row, runs
from spml_tf.runs.run_folder import RunFolder
from spml_tf.system.files import write_table


def run_folder(path: Path, val: float | None, test: float | None, **given) -> RunFolder:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    values = {"dataset": "digits", "method": "en", "seed": 0, "epochs": 2, **given}
    record = {"flags": values, "data_fingerprint": "", "class_names": [], "images": {}}
    folder.record.write_text(json.dumps(record))
    scores = {"val": {"map": val, "ap": {}}, "test": {"map": test, "ap": {}}}
    folder.metrics.write_text(json.dumps({"best_epoch": 2, **scores}))
    rows = [
        {"epoch": 1, "val_map": 0.5, "seconds": 1.25, "selection_precision": ""},
        {"epoch": 2, "val_map": 0.5, "seconds": 2.5, "selection_precision": 0.75},
    ]
    write_table(folder.history, rows)
    return folder


def test_a_csv_row(tmp_path):
    """1.25 + 2.5 seconds are 3.75, rounded 4; a flag that a row does not set is the run's own."""
    folder = run_folder(tmp_path / "run", 70.12345, None, learning_rate=0.004)
    run = runs(plan_of(row("r"), vary="epochs", values=["2"]))[0]
    found = result_tables.csv_row(run, folder, ["epochs", "learning_rate"], "abc")
    assert found == {
        "dataset": "digits", "method": "en", "row": "r", "seed": 0, "val_map": 70.123,
        "test_map": "", "best_epoch": 2, "seconds": 4, "commit": "abc", "epochs": "2",
        "learning_rate": 0.004, "selection_precision": "0.75", "selection_recall": "",
    }  # fmt: skip
    # The varied flag is a column already: its text must still be found by the table.
    line = result_tables.lines(plan_of(row("r"), vary="epochs", values=["2"]), [found])[0]
    assert (line.value, line.seeds, line.val, line.test) == ("2", 1, (70.123, None), None)


def results(*numbers: tuple) -> list[dict]:
    return [
        {"row": name, "seed": seed, "val_map": val, "test_map": test, "crop_area": value}
        for name, seed, val, test, value in numbers
    ]


def test_the_table_by_hand():
    """an: 60, 64, mean 62, deviation sqrt(8) = 2.83; bce: 82; en: 71, half of the 22 points
    of the one seed that all have; x has a seed without positives; y has not run."""
    rows = [row(n) for n in ("an", "bce", "en", "x", "y")]
    plan = plan_of(*rows, seeds=(0, 1), ends=("an", "bce"))
    found = results(
        ("an", 0, 61.0, 60.0, ""), ("an", 1, 63.0, 64.0, ""), ("bce", 0, 80.0, 82.0, ""),
        ("en", 0, 70.0, 71.0, ""), ("x", 0, 50.0, 55.0, ""), ("x", 1, "", "", ""),
    )  # fmt: skip
    table = result_tables.lines(plan, found)
    assert [line.gap for line in table] == [0.0, 1.0, 0.5, None]
    assert table[0].test == (62.0, pytest.approx(8**0.5))
    text = result_tables.markdown(plan, table, ["fact"])
    assert text.startswith("# Title\n\n- fact\n- mAP in percent")
    assert "- Where mAP val is empty it is undefined for a seed, whose last epoch" in text
    assert "- Gap closed: (row - an) / (bce - an), over the seeds that all three have.\n" in text
    assert text.splitlines()[-6:] == [
        "| row | seeds | mAP val | mAP test | gap closed |",
        "|---|---|---|---|---|",
        "| an | 2 | 62.00 ± 1.41 | 62.00 ± 2.83 | 0% |",
        "| bce | 1 of 2 | 80.00 | 82.00 | 100% |",
        "| en | 1 of 2 | 70.00 | 71.00 | 50% |",
        "| x | 2 |  |  |  |",
    ]


def test_the_table_of_a_varied_flag_with_the_papers_numbers():
    rows = Row("a|b", "en", {}, 54.0, None, {}), row("c")
    plan = Plan("T", "mAP of old", (0,), rows, None, None, "crop_area", ("1,1", "0|5"), None)
    found = results(("a|b", 0, 1.0, 2.0, "0|5"), ("a|b", 0, 3.0, 4.0, "1,1"), ("c", 0, 5, 6, "1,1"))
    text = result_tables.markdown(plan, result_tables.lines(plan, found), [])
    assert "- Paper: mAP of old." in text and "Gap" not in text
    assert text.splitlines()[-3:] == [
        "| a\\|b | 1,1 | 1 | 3.00 | 4.00 | 54.0 |",
        "| a\\|b | 0\\|5 | 1 | 1.00 | 2.00 | 54.0 |",
        "| c | 1,1 | 1 | 5.00 | 6.00 |  |",
    ]


def test_no_gap_between_equal_rows():
    plan = plan_of(row("an"), row("bce"), ends=("an", "bce"))
    table = result_tables.lines(plan, results(("an", 0, 5.0, 6.0, ""), ("bce", 0, 5.0, 6.0, "")))
    assert [line.gap for line in table] == [None, None]


@pytest.mark.parametrize("vary", ["", "crop_area"])
def test_figures_are_drawn_alike_each_time(tmp_path, vary):
    plan = plan_of(row("a"), row("$b_"), vary=vary, values=("1", "2") if vary else ())
    plan = dataclasses.replace(plan, title="of $x_$ " * 20)
    found = [
        {"row": n, "seed": s, "val_map": 50.0 + s, "test_map": "", "crop_area": v}
        for n, s, v in itertools.product(("a", "$b_"), (0, 1), plan.values or ("",))
    ]
    for name in ("one", "two"):
        result_tables.draw(tmp_path / name, plan, result_tables.lines(plan, found))
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
    result_tables.draw(
        tmp_path / "x", plan, result_tables.lines(plan, results(("a", 0, "", "", "")))
    )
    assert not list(tmp_path.iterdir())
