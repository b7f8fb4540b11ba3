"""README, docs/ and the pages made for the site: what they name exists, what they show runs."""

from __future__ import annotations

import ast
import configparser
import importlib
import importlib.util
import re
import shlex
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from conftest import run
from PIL import Image

import spml_tf
from spml_tf.training import methods

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "experiments" / "README.md",
    ROOT / "experiments" / "results" / "README.md",
]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def site():
    """The module that makes pages for the site."""
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "tools" / "site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in one language, without the indentation of lists."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.S | re.M)
    return [textwrap.dedent(code) for code in found]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pages
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            slugs = {re.sub(r"[^\w -]", "", x).lower().replace(" ", "-") for x in headings}
            assert anchor in slugs, target


@pages
def test_files_that_are_named_exist(page):
    folders = r"spml_tf|tools|tests|docs|experiments"
    for name in re.findall(rf"`((?:{folders})/[\w/.]+)`", page.read_text()):
        assert (ROOT / name).exists(), name


@pages
def test_imports_of_python_code_are_there(page):
    for code in blocks(page, "python"):
        if code.startswith("--8<--"):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("spml_tf"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.util.find_spec(
                        f"{node.module}.{alias.name}"
                    ), f"{node.module}.{alias.name}"


@pages
def test_commands_have_the_flags_they_are_given(page, site):
    lines = "\n".join(blocks(page, "bash")).splitlines()
    for words in (shlex.split(line) for line in lines if "-m spml_tf." in line):
        name = next(word for word in words if word.startswith("spml_tf.")).partition(".")[2]
        plugins = [word for word in words if word.startswith("--plugins=docs/")]
        shown = run(*plugins, "--help", module=name).stdout if plugins else site.help_text(name)
        known = set(re.findall(r"^  --(?:\[no\])?(\w+)", shown, re.M))
        for word in words:
            flag, _, value = word.removeprefix("--").partition("=")
            if word.startswith("--"):
                assert flag in known, word
            if value.startswith("experiments/"):
                assert all((ROOT / path).exists() for path in value.split(",")), word


def test_own_code_runs(tmp_path, monkeypatch):
    """The blocks of docs/own_code.md one after the other, small and without downloads."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(ROOT / "docs" / "own_code.md", "python"))
    for large, small in (
        (  # other tests build it
            'resnet50_cam(num_classes=20, weights="imagenet", image_size=448)',
            "small_residual_cam(num_classes=20, image_size=64)",
        ),
        ("num_images=5717", "num_images=8"),
        ("epochs=10", "epochs=1, verbose=0"),
        ('weights="imagenet", input_shape=(224, 224, 3)', "weights=None, input_shape=(64, 64, 3)"),
    ):
        assert code.count(large) == (2 if "num_images" in large else 1), large
        code = code.replace(large, small)
    images = np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3)).astype(np.float32)
    labels = np.where(np.arange(20) == np.arange(8)[:, None], 1, -1).astype(np.int8)
    paths = [str(tmp_path / "photos" / "ab"[x % 2] / f"{x}.png") for x in range(8)]
    for path, image in zip(paths, images.astype(np.uint8), strict=True):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    names = {"images": images, "labels": labels, "paths": paths}
    exec(code, names)
    batch, rows = next(iter(names["train_dataset"]))  # of the folders
    assert batch["image"].shape == (8, 448, 448, 3) and rows.shape == (8, 2)
    assert names["scores"].shape == (8, 20) and names["maps"].shape == (8, 8, 8, 20)
    np.testing.assert_allclose(
        names["served"].predict(images, verbose=0), names["maps"], rtol=1e-5, atol=1e-5
    )
    assert isinstance(names["network"], keras.Model)
    assert names["network"].output_shape == (None, 2, 2, 20)


def test_every_method_is_in_the_table_of_methods():
    table = (ROOT / "docs" / "method.md").read_text().partition("\n## Methods\n")[2]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == sorted(methods.METHODS)


def test_the_pages_about_commands_show_every_flag_once(site):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].split("\n")
    names = [script.split("spml_tf.")[1].removesuffix(":main") for script in scripts if script]
    assert len(names) >= 10 and site.command_names() == names
    made = site.generated_pages()
    for name in names:
        page = made[f"commands/{name}.md"]
        flags = re.findall(r"^  --(?:\[no\])?(\w+)", site.help_text(name), re.M)
        assert (
            sorted(re.findall(r"^\| `--(?:\[no\])?(\w+)`", page, re.M)) == sorted(flags) and flags
        )
        assert f"[`{name}`]({name}.md)" in made["commands/README.md"]


def test_flags_stand_under_what_they_are_about(site):
    usage, groups = site.read_help(site.help_text("train"))
    assert usage.startswith("Trains a multi-label classifier")
    found = {heading: texts for heading, texts in groups}
    own = {"--output_dir", "--preset", "--[no]list_presets", "--rounds"}
    own.add("--[no]find_learning_rate")
    assert set(found[""]) == {*own, "--flagfile", "--debug", "--version"}
    assert "--label_seed" in found["Data and labels"]
    assert found["Data and labels"]["--data_dir"] == "Folder of the data set."
    assert "--difficult=negative|positive|unknown" in found["Flags of single data sets"]
    assert "## Data and labels" in site.command_page("train", usage, groups)


def test_plain_text_stays_plain_in_markdown(site):
    text = "a*b*c | x_y_z <DIR>, see --val_split=none."
    assert site.markdown_text(text) == (r"a\*b\*c \| x\_y\_z \<DIR\>, see `--val_split=none`.")


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == spml_tf.__version__ and citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    families = [author["family-names"] for author in paper["authors"]]
    assert families == ["Verelst", "Rubenstein", "Eichner", "Tuytelaars", "Berman"]
    readme = (ROOT / "README.md").read_text()
    assert f"title = {{{paper['title']}}}" in readme and f"year = {{{paper['year']}}}" in readme
