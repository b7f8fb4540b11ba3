"""Names of photos become paths, and never lead out of the data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_tf.datasets.readers.photos import find_photos, require_photos
from spml_tf.system.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data/a.jpg, data/sub/b.jpg, links to a file and to a folder outside, and one inside."""
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "sub").mkdir(parents=True)
    outside.mkdir()
    for path in (data / "a.jpg", data / "sub" / "b.jpg", outside / "secret.jpg"):
        path.write_bytes(b"x")
    (data / "link.jpg").symlink_to(outside / "secret.jpg")
    (data / "inner.jpg").symlink_to(data / "a.jpg")
    (data / "linked").symlink_to(outside)
    return data


def test_finds_what_is_there(folder):
    names = ["a.jpg", "sub/b.jpg", "./sub//b.jpg", "none.jpg", "sub", "no/c.jpg", "a.jpg/x"]
    b = str(folder / "sub" / "b.jpg")
    found = [
        None if path is None else os.path.normpath(path) for path in find_photos(folder, names)
    ]
    assert found == [str(folder / "a.jpg"), b, b, None, None, None, None]


def test_a_link_that_leads_in_a_circle_is_no_file(folder):
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    assert find_photos(folder, ["a.jpg"]) == [str(folder / "a.jpg")]
    assert find_photos(folder, ["a.jpg", "round.jpg"], True) == [str(folder / "a.jpg"), None]
    with pytest.raises(UserError, match="'round.jpg' is a symbolic link"):
        find_photos(folder, ["round.jpg"])


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    alias = tmp_path / "alias"
    assert find_photos(alias, ["a.jpg"]) == [str(alias / "a.jpg")]


def test_relative_folders_give_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert find_photos("data", ["a.jpg"]) == [str(folder / "a.jpg")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside/secret.jpg", "leaves the data folder"),
        ("sub/../a.jpg", "leaves the data folder"),
        ("sub\\..\\a.jpg", "leaves the data folder"),
        ("link.jpg", "is a symbolic link"),
        ("inner.jpg", "is a symbolic link"),
        ("linked/secret.jpg", "lies behind a symbolic link"),
        ("sub/./../linked/secret.jpg", "leaves the data folder"),
        ("sub\0/b.jpg", "holds a null character"),
    ],
)
def test_refuses_ways_out(folder, name, message):
    with pytest.raises(UserError, match=f"list:2: .*{message}; .*--allow_outside"):
        find_photos(folder, ["a.jpg", name], place=lambda row: f"list:{row + 1}")
    if "\\" not in name and "\0" not in name:
        (path,) = find_photos(folder, [name], allow_outside=True)
        assert Path(path).read_bytes() == b"x"


def test_absolute_names(folder):
    name = str(folder / "a.jpg")
    with pytest.raises(UserError, match="is an absolute path"):
        find_photos(folder, [name])
    assert find_photos(folder, [name], allow_outside=True) == [name]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["..", ".", "", "sub", "linked", "b.jpg", "secret.jpg"]), max_size=6)
)
def test_nothing_found_lies_outside(tmp_path_factory, parts):
    data = tmp_path_factory.getbasetemp() / "law" / "data"
    if not data.exists():
        (data / "sub").mkdir(parents=True)
        (data.parent / "secret.jpg").write_bytes(b"x")
        (data / "sub" / "b.jpg").write_bytes(b"x")
        (data / "linked").symlink_to(data.parent)
    try:
        found = find_photos(data, ["/".join(parts)])[0]
    except UserError:
        return
    assert found is None or os.path.realpath(found).startswith(str(data.resolve()) + os.sep)


def test_null_characters_find_nothing(folder):
    assert find_photos(folder, ["sub\0/b.jpg", "a.jpg\0"], allow_outside=True) == [None, None]


def test_missing_photos_are_counted(folder):
    with pytest.raises(UserError, match=r"t:1: .*no\.jpg: .* missing \(2 of 3 are\); get it there"):
        require_photos(
            folder, ["a.jpg", "no.jpg", "x.jpg"], "get it there", place=lambda row: f"t:{row}"
        )
    assert require_photos(folder, ["a.jpg"], "") == (str(folder / "a.jpg"),)
