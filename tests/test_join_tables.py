"""The tool that joins two tables of a plan."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from saved_runs import table_rows

TOOL = Path(__file__).parent.parent / "tools" / "join_tables.py"
PLAN = """
title = "T"
seeds = [0, 1]
baseline = "an"
oracle = "bce"
compare = [["en", "ep"], ["en", "an"]]

[[rows]]
name = "an"
method = "an"
flags = { dataset = "digits", epochs = 2 }

[[rows]]
name = "bce"
method = "bce"
flags = { dataset = "digits", epochs = 2 }

[[rows]]
name = "en"
method = "en"
flags = { dataset = "digits", epochs = 2 }

[[rows]]
name = "ep"
method = "ep"
flags = { dataset = "digits", epochs = 2 }
"""
OLD = """# T

- `command`
- Commit: a
- Machine: M
- 5 runs

| row | minus | seeds | difference | 95 % over images | 95 % over seeds | seeds above |
|---|---|---|---|---|---|---|
| en | ep | 1 | +1.00 | -0.50 to +2.50 |  | 1 of 1 |
| en | an | 1 | +4.00 | +3.00 to +5.00 |  | 1 of 1 |
"""
HEAD = "dataset,method,row,seed,val_map,test_map,best_epoch,seconds,commit,epochs\n"


def given(folder: Path, patch: pytest.MonkeyPatch, old: str, new: str, *words: str) -> None:
    """Writes the plan and its tables, of such rows, and what the tool is told."""
    (folder / "t.toml").write_text(PLAN)
    (folder / "t.csv").write_text(HEAD + old)
    (folder / "new.csv").write_text(HEAD + new)
    (folder / "t.md").write_text(OLD)
    files = {"plan": "t.toml", "table": "t.csv", "new": "new.csv"}
    flags = [f"--{name}={folder / file}" for name, file in files.items()]
    patch.setattr(sys, "argv", [str(TOOL), *flags, *words])


def test_new_runs_take_the_places_of_old_ones(tmp_path, monkeypatch):
    """AN's seed 0 is run again, BCE's seed 1 is new: 8 - 4 = 4 and 10 - 5 = 5 points."""
    old = (
        "digits,an,an,0,1,2,1,3600,a,2\ndigits,an,an,1,4,5,1,3600,a,2\n"
        "digits,bce,bce,0,9,8,2,3600,a,2\ndigits,en,en,0,6,7,2,3600,a,2\n"
        "digits,ep,ep,0,6,6,2,3600,a,2\n"
    )
    new = "digits,an,an,0,3,4,2,1800,b,2\ndigits,bce,bce,1,9,10,2,1800,b,2\n"
    given(tmp_path, monkeypatch, old, new, "--machine=N")
    runpy.run_path(str(TOOL), run_name="__main__")
    rows = [
        (x["row"], x["seed"], x["test_map"], x["commit"]) for x in table_rows(tmp_path / "t.csv")
    ]
    assert rows == [
        ("an", "0", "4.0", "b"), ("an", "1", "5.0", "a"),
        ("bce", "0", "8.0", "a"), ("bce", "1", "10.0", "b"), ("en", "0", "7.0", "a"),
        ("ep", "0", "6.0", "a"),
    ]  # fmt: skip
    text = (tmp_path / "t.md").read_text()
    assert "- `command`\n- Commit: b, a\n- Machine: M; of the runs of commits b: N\n" in text
    assert "6 runs, 5.0 hours" in text
    # Of seed 0, which all three have: (7 - 4) / (8 - 4). AN is run again: its old interval goes.
    assert "| en | an | 1 | +3.00 |  |  | 1 of 1 | 75% |  |  |" in text
    assert "| en | ep | 1 | +1.00 | -0.50 to +2.50 |  | 1 of 1 |" in text
    assert "| bce | 2 | 9.00 ± 0.00 | 9.00 ± 1.41 | 100% |" in text
    assert "| bce | an | 2 | +4.50 |  | -1.85 to +10.85 | 2 of 2 |" in text  # 12.706 x 0.5
    assert (tmp_path / "t.png").exists() and not (tmp_path / "t.svg").exists()
    runpy.run_path(str(TOOL), run_name="__main__")
    assert (tmp_path / "t.md").read_text() == text  # the same runs again change nothing


def test_undefined_values_are_left_out_and_said_once(tmp_path, monkeypatch):
    """EN's seed 1 has no mAP on test, and none on val: only seed 0 is compared, 7 - 2 = 5."""
    old = (
        "digits,an,an,0,1,2,1,3600,a,2\ndigits,an,an,1,4,5,1,3600,a,2\n"
        "digits,en,en,0,6,7,2,3600,a,2\n"
    )
    given(tmp_path, monkeypatch, old, "digits,en,en,1,,,2,1800,b,2\n")
    for _ in range(2):
        runpy.run_path(str(TOOL), run_name="__main__")
        text = (tmp_path / "t.md").read_text()
        assert text.count("Where mAP val is empty") == 1
        assert "| en | an | 1 | +5.00 |" in text


def test_a_row_that_the_plan_has_not_is_refused(tmp_path, monkeypatch):
    rows = [f"digits,an,{name},0,1,2,1,3600,a,2\n" for name in ("an", "old an")]
    given(tmp_path, monkeypatch, *rows)
    with pytest.raises(SystemExit, match=r"new.csv: the plan has no row 'old an'; take it out"):
        runpy.run_path(str(TOOL), run_name="__main__")
    assert (tmp_path / "t.md").read_text() == OLD


@pytest.mark.parametrize(
    "tool", ["join_tables", "draw_labels_spent", "measure_consistency", "measure_suggestions"]
)
def test_help_and_a_typo_are_no_traceback(tool, monkeypatch, capsys):
    for word, code in (("--help", 0), ("--typo", 2)):
        monkeypatch.setattr(sys, "argv", [tool, word])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TOOL.with_name(f"{tool}.py")), run_name="__main__")
        assert ended.value.code == code
    told = capsys.readouterr()
    assert f"tools/{tool}.py" in told.out and "required: --" in told.err
