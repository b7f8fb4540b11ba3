"""export --push: what would be uploaded, what is, and what goes wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from conftest import run

from spml_tf import export as exporting

PUSH = "--push=hf://ann/street-photos"


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """Is logged in, and no environment of the user's counts."""
    pytest.importorskip("huggingface_hub", reason="needs the extra [huggingface]")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def words(finished, tmp_path) -> list[str]:
    return [f"--run_dir={finished}", f"--export_dir={tmp_path / 'model'}", PUSH]


class Api:
    """Stands in for huggingface_hub.HfApi, and keeps what it is told."""

    told: list = []  # noqa: RUF012

    def __init__(self, **options):
        pass

    def create_repo(self, *names, **options):
        self.told.append((names, options))
        return "https://example.org/ann/street-photos"

    def create_commit(self, name, operations, commit_message):
        held = {}
        for one in operations:
            held[one.path_in_repo] = (
                Path(one.path_or_fileobj).read_bytes()
                if isinstance(one.path_or_fileobj, str)
                else one.path_or_fileobj
            )
        self.told.append((name, held))


@pytest.fixture
def api(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(Api, "told", [])
    return Api


def test_a_dry_run_lists_every_file_and_needs_no_one(words, tmp_path, monkeypatch):
    """Each file of the export with its bytes; the card goes by another name and is longer there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run(*words, "--dry_run", module="export", new_python=True)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "model"
    lines = done.stdout.splitlines()
    assert lines[0] == "would upload to the private repository ann/street-photos:"
    assert lines[-1] == f"exported to {folder}"
    listed = {name: int(x.replace(",", "")) for x, name in map(str.split, lines[1:-2])}
    card = folder / "MODEL_CARD.md"
    there = {x for x in folder.rglob("*") if x.is_file() and x.name[0] != "."} - {card}
    sizes = {x.relative_to(folder).as_posix(): x.stat().st_size for x in there}
    assert {"saved_model.pb", "classes.json"} < set(sizes)
    assert listed.pop("README.md") > card.stat().st_size
    assert listed == sizes
    assert lines[-2].split()[1:] == ["bytes", "in", str(len(sizes) + 1), "files"]


@pytest.mark.parametrize("public", (False, True))
def test_one_commit_holds_the_export(words, finished, tmp_path, api, capsys, public):
    import huggingface_hub

    assert exporting.main([*words, *["--public"] * public]) == 0
    (made, options), (name, held) = api.told
    assert made == ("ann/street-photos",) and name == "ann/street-photos"
    assert options == {"private": not public, "exist_ok": True}
    folder = tmp_path / "model"
    assert held["saved_model.pb"] == (folder / "saved_model.pb").read_bytes()
    assert "MODEL_CARD.md" not in held
    card = huggingface_hub.ModelCard(held["README.md"].decode())
    assert card.text.strip() == (folder / "MODEL_CARD.md").read_text().strip()
    facts, results = card.data.to_dict(), json.loads((finished / "metrics.json").read_text())
    assert facts["pipeline_tag"] == "image-classification" and facts["library_name"] == "spml_tf"
    assert "en+scl" in facts["tags"]
    values = {one.dataset_split: one.metric_value for one in card.data.eval_results}
    assert values == {x: round(results[x]["map"], 2) for x in ("val", "test")}
    out = capsys.readouterr().out
    assert f"uploading to the {'public' if public else 'private'} repository" in out
    assert "pushed to https://example.org/ann/street-photos" in out and "hf_secret" not in out


def test_a_hub_that_cannot_be_reached_leaves_the_export(words, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = run(*words, module="export", new_python=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {PUSH}: ")
    assert f"the export is in {tmp_path / 'model'}, and the same command with --overwrite" in line
    assert "hf_secret" not in done.stderr and (tmp_path / "model" / "saved_model.pb").exists()


def test_a_refusal_is_one_line(words, api, monkeypatch, capsys):
    """As of a name space that is somebody else's."""

    def refuse(self, *names, **options):
        raise PermissionError("403 Forbidden:\n you have no rights to ann")

    monkeypatch.setattr(Api, "create_repo", refuse)
    assert exporting.main(words) == 1
    assert (
        f"{PUSH}: 403 Forbidden: you have no rights to ann; the export" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([PUSH], "nobody is logged in; run `hf auth login`, or set HF_TOKEN"),
        (["--push=ann/model", "--dry_run"], "give hf://OWNER/NAME"),
        (["--push=hf://model", "--dry_run"], "give hf://OWNER/NAME"),
        (["--push=hf://ann/my model", "--dry_run"], "give hf://OWNER/NAME"),
        (["--dry_run"], "--dry_run: goes with --push"),
        (["--public"], "--public: goes with --push"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(finished, tmp_path, capsys, flags, says):
    folder = tmp_path / "model"
    assert exporting.main([f"--run_dir={finished}", f"--export_dir={folder}", *flags]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match("error: --(push|dry_run|public)", line) and says in line
    assert not folder.exists()


def test_a_library_that_is_missing_is_named(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert exporting.main(words) == 1
    assert "needs huggingface_hub, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
