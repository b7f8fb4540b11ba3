"""Files of reviewed labels: journals and their last rows, several reviewers' files merged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spml_tf import review
from spml_tf.datasets import label_files, reviewed_merging
from spml_tf.datasets.reviewed_files import JOURNAL_COLUMNS, Journal, read_rows
from spml_tf.system.errors import UserError

HEADER = ",".join(JOURNAL_COLUMNS) + "\n"


def decided(path: Path) -> dict[tuple[str, str], str]:
    return {row.key: row.label for row in read_rows(path) if row.label}


class TestJournal:
    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            ("", {"a": "1"}),
            ('"b', {"a": "1"}),
            ('"b\n', {"a": "1"}),
            ("b,x,1", {"a": "1"}),
            ("b\udcc3", {"a": "1"}),  # the first byte of two
            ("b,x,1,2026-1", {"a": "1", "b": "1"}),
            ("a,x,,2026-1", {}),
        ],
    )
    def test_a_last_row_that_was_cut_off(self, tmp_path, end, expected):
        """It goes unless it holds a whole decision; what follows is a row of its own."""
        path = tmp_path / "j.csv"
        path.write_text(f"{HEADER}a,x,1,t\n{end}", "utf-8", "surrogateescape")
        with Journal.opened(path) as journal:
            assert {image: label for (image, _), label in journal.decisions().items()} == expected
            journal.add("=c", 'x "y",\nz', "0")
        assert decided(path) == {
            **{(image, "x"): label for image, label in expected.items()},
            ("=c", 'x "y",\nz'): "0",
        }

    def test_the_last_row_of_a_label_counts(self, tmp_path):
        path = tmp_path / "j.csv"
        path.write_text(f"{HEADER}a,x,1,t\nb,x,1,t\na,x,0,t\nb,x,,t\n")
        found = label_files.read_reviewed([path], ("a", "b"), ("x",))
        assert found.tolist() == [[0], [-1]]
        (tmp_path / "two.csv").write_text("image,class,label\nb,x,0\n")
        found = label_files.read_reviewed([path, tmp_path / "two.csv"], ("a", "b"), ("x",))
        assert found.tolist() == [[0], [0]]

    def test_a_row_that_the_disk_takes_in_part(self, tmp_path, monkeypatch):
        """It goes again, and the journal goes on."""
        path, write = tmp_path / "j.csv", os.write
        with Journal.opened(path) as journal:
            with monkeypatch.context() as patch:
                patch.setattr(os, "write", lambda file, line: write(file, line[:5]))
                with pytest.raises(OSError, match="No space left"):
                    journal.add("a", "x", "1")
            assert path.read_text() == HEADER and journal.decisions() == {}
            journal.add("a", "x", "0")
        assert decided(path) == {("a", "x"): "0"}


class TestMerge:
    @pytest.fixture
    def files(self, tmp_path) -> list[Path]:
        """Ann's journal, in which dog of 1 was taken back, and two tables."""
        contents = {
            "reviewed_ann.csv": f"{HEADER}1,cat,1,t\n1,dog,1,t\n2,cat,0,t\n1,dog,,t\n3,cat,1,t\n",
            "bob.csv": "image,class,label\n1,cat,1\n1,dog,0\n2,cat,1\n",
            "eve.csv": "score,label,class,image\n1,1,cat,1\n1,,cat,2\n1,0,cat,3\n",
        }
        for name, content in contents.items():
            (tmp_path / name).write_text(content)
        return [tmp_path / name for name in contents]

    def test_agreed_labels_and_disagreements(self, files, tmp_path, capsys):
        words = [f"--merge={','.join(map(str, files))}", f"--output_dir={tmp_path / 'out'}"]
        assert review.main(words) == 0
        said = capsys.readouterr().out
        assert "2 labels agreed, 1 of them by two reviewers or more\n2 disagreements\n" in said
        agreed = (tmp_path / "out" / "reviewed.csv").read_text()
        assert agreed == "image,class,label\n1,cat,1\n1,dog,0\n"
        path = tmp_path / "out" / "disagreements.csv"
        text = "image,class,label,reviewed_ann,bob,eve\n2,cat,,0,1,\n3,cat,,1,,0\n"
        assert path.read_text() == text
        path.write_text(text.replace("3,cat,,", "3,cat,1,"))  # settled by hand
        paths = [tmp_path / "out" / "reviewed.csv", path]
        found = label_files.read_reviewed(paths, ("1", "2", "3"), ("cat", "dog"))
        assert found.tolist() == [[1, 0], [-1, -1], [1, -1]]
        assert review.main(words) == 1
        assert "disagreements.csv: was edited" in capsys.readouterr().err
        assert "3,cat,1," in path.read_text()

    def test_mistakes(self, files, tmp_path):
        ann, bob, _ = map(str, files)
        with pytest.raises(UserError, match="name two files or more, each once"):
            reviewed_merging.write_merged([ann], tmp_path / "out")
        with pytest.raises(UserError, match="name two files or more, each once"):
            reviewed_merging.write_merged([ann, bob, ann], tmp_path / "out")
        files[1].write_text("image,class,label\n1,cat,1\n1,cat,0\n")
        with pytest.raises(UserError, match=r"bob.csv:3: 'cat' of '1' is 0 here and 1 in an"):
            reviewed_merging.write_merged([ann, bob], tmp_path / "out")
        files[1].rename(tmp_path / "reviewed.csv")
        with pytest.raises(UserError, match=r"reviewed.csv: is read by this command"):
            reviewed_merging.write_merged([ann, str(tmp_path / "reviewed.csv")], tmp_path)
        assert not (tmp_path / "out").exists()
