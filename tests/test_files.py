"""Files written in one step, and folders that a command must not replace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spml_tf.system import files, folders
from spml_tf.system.errors import UserError
from spml_tf.system.json_text import read_json_or_none
from spml_tf.system.text_files import end_of_whole_rows


def test_a_csv_to_the_byte(tmp_path):
    """Quotation only where it is needed, None empty, and the line ends asked for."""
    rows = [("a,b", 1, None), ("ü", 0.5, 'x"y')]
    assert files.write_csv(tmp_path / "t.csv", ["name", "n", "note"], rows) == 2
    expected = 'name,n,note\n"a,b",1,\nü,0.5,"x""y"\n'
    assert (tmp_path / "t.csv").read_bytes() == expected.encode("utf-8")
    files.write_csv(tmp_path / "t.csv", ["name"], [["\udcff"]], "\r\n", errors="surrogateescape")
    assert (tmp_path / "t.csv").read_bytes() == b"name\r\n\xff\r\n"


def test_a_table_has_every_column_that_a_row_names(tmp_path):
    """The second row lacks a and brings c."""
    files.write_table(tmp_path / "t.csv", [{"a": 1, "b": 2}, {"b": 3, "c": None}])
    assert (tmp_path / "t.csv").read_bytes() == b"a,b,c\r\n1,2,\r\n,3,\r\n"


def test_a_file_that_could_not_be_replaced_is_not_taken_for_edited(tmp_path, monkeypatch):
    """Twice: what is there is still known as ours."""
    path = tmp_path / "t.csv"
    files.write_text(path, "first", files.replaced_unless_edited)
    real = files.os.replace

    def refusing(source, target):
        if Path(target) == path:
            raise PermissionError(13, "Permission denied", str(target))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", refusing)
        for text in ("second", "third"):
            with pytest.raises(PermissionError):
                files.write_text(path, text, files.replaced_unless_edited)
    assert path.read_text() == "first"
    files.write_text(path, "fourth", files.replaced_unless_edited)
    path.write_text("edited")
    with pytest.raises(UserError, match="was edited"):
        files.write_text(path, "fifth", files.replaced_unless_edited)


def test_output_that_nobody_reads_is_no_fault_of_a_folder():
    with pytest.raises(BrokenPipeError), files.naming_unwritable("--output_dir=o"):
        raise BrokenPipeError(32, "Broken pipe")


def test_two_processes_do_not_write_one_folder(tmp_path):
    """The second would remove what the first has begun."""
    target = tmp_path / "new" / "model"
    second = (
        "import sys, pathlib; from spml_tf.system import folders\n"
        "try:\n"
        "    with folders.replaced_folder(pathlib.Path(sys.argv[1])): print('inside')\n"
        "except ValueError as error: print(error)\n"
    )
    with folders.replaced_folder(target) as folder:
        (folder / "x").write_text("first")
        words = [sys.executable, "-c", second, str(target)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"{target}: another process writes it; wait until it has ended\n"
    assert (target / "x").read_text() == "first"
    assert [x.name for x in target.parent.iterdir()] == ["model"]


def test_a_row_that_fails_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "t.csv").write_text("before")

    def rows():
        yield [1]
        raise KeyError("the second")

    with pytest.raises(KeyError):
        files.write_csv(tmp_path / "t.csv", ["n"], rows())
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "before"


@pytest.mark.parametrize(
    ("content", "is_ours", "kept", "message"),
    [
        (None, False, "is kept", None),
        ([], False, "is kept", None),
        (["x"], False, "", "--output_dir=o: is another's"),
        (["x"], True, "is kept", "--output_dir=o: is kept"),
        (["x"], True, "", None),
        ("a file", False, "", "--output_dir=o: is another's"),
    ],
)
def test_folders_that_hold_something(tmp_path, content, is_ours, kept, message):
    folder = tmp_path / "o"
    if isinstance(content, str):
        folder.write_text(content)
    elif content is not None:
        folder.mkdir()
        for name in content:
            (folder / name).touch()
    arguments = folder, "--output_dir=o", is_ours, "is another's", kept
    if message is None:
        folders.check_output_folder(*arguments)
    else:
        with pytest.raises(UserError) as error:
            folders.check_output_folder(*arguments)
        assert str(error.value) == message


def test_what_cannot_be_written_is_one_line(tmp_path):
    with (
        pytest.raises(UserError, match=r"^--output=o: cannot be written \(.*Is a directory"),
        files.naming_unwritable("--output=o"),
    ):
        open(tmp_path, "w")


@pytest.mark.parametrize(
    ("whole", "cut_off"),
    [
        (b"", b""),
        (b"", b"a,b"),
        (b"a,b\n1,2\n", b""),
        (b"a,b\n1,2\n", b"3"),
        (b'a,b\r\n"1\n2",3\r\n', b'4,"5'),
        (b"a,b\n", b'"1\n2\n3'),
        (b'a,b\n"say ""x""",1\n', b'"say ""\n'),
        (b"", b'"a\n'),
    ],
)
def test_the_end_of_the_last_whole_row(whole, cut_off):
    assert end_of_whole_rows(whole + cut_off) == len(whole)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (None, None),
        (b'{"a": [1]}', {"a": [1]}),
        (b"[", None),
        (b"\xff", None),
        (b"[" * 10**5, None),
    ],
)
def test_json_or_nothing(content, value, tmp_path):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json_or_none(path) == value
