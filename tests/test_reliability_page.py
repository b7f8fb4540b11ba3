"""docs/reliability.md holds a row for each fault that a test causes.

`python tests/test_reliability_page.py` writes its tables; the text around them is written by hand.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import faults

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- tables: written by tests/test_reliability_page.py -->", "<!-- end of tables -->"


def tables() -> str:
    for file in sorted(Path(__file__).parent.glob("test_faults_*.py")) + [
        Path("test_distribution.py")
    ]:
        importlib.import_module(file.stem)
    sections: dict[str, list[str]] = {}
    for row in sorted(set(faults.ROWS), key=lambda row: (row.section, row.fault)):
        cells = (row.fault, row.cause, row.happens, row.lost)
        text = " | ".join(cell.replace("|", "\\|") for cell in cells)
        sections.setdefault(row.section, []).append(f"| {text} |")
    head = "| fault | how a test causes it | what happens | what is lost |\n|---|---|---|---|\n"
    return "\n\n".join(
        f"## {title}\n\n{head}{chr(10).join(rows)}" for title, rows in sections.items()
    )


def page(old: str) -> str:
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def test_the_page_is_up_to_date():
    text = PAGE.read_text("utf-8")
    assert text == page(text)


def test_each_row_names_a_fault_of_its_own():
    tables()
    named = [(row.section, row.fault) for row in set(faults.ROWS)]
    assert len(named) == len(set(named))
    assert all(re.match(r"\S", cell) for row in faults.ROWS for cell in (row.fault, row.cause))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
