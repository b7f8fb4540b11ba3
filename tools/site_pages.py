"""Pages of the documentation that no file in docs/ holds; a hook of MkDocs, see mkdocs.yml.

- README and other files at the top level and in experiments/ become pages, their links set right.
- Each command has a page with the text and the flags of its --help.
- Each folder of the package has a page, which mkdocstrings fills from the docstrings.
"""

from __future__ import annotations

import configparser
import contextlib
import importlib
import io
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff")
LINK = re.compile(r"(?<=\]\()([^\s()#:]+)(?=[#)])")


class Flags(NamedTuple):
    """The flags of a command that stand together, as --help shows them.

    Attributes:
        heading: what they are about.
        texts: "--name", or "--name=choice|choice", and what it sets.
    """

    heading: str
    texts: dict[str, str]


def on_config(config: MkDocsConfig) -> None:
    """Fills the parts "Commands" and "API" of the navigation."""
    filled: dict[str, list[Any]] = {
        "Commands": ["commands/README.md", *(f"commands/{name}.md" for name in command_names())],
        "API": [f"api/{name}.md" for name in documented_modules()],
    }
    for entry in config.nav or ():
        for title in entry.keys() & filled.keys():
            entry[title] = filled[title]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages."""
    for path in outside_files():
        content = (ROOT / path).read_text("utf-8")
        level = InclusionLevel.NOT_IN_NAV  # may be left out of it: the tables are
        files.append(File.generated(config, path, content=content, inclusion=level))
    for name, content in generated_pages().items():
        files.append(File.generated(config, name, content=content))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between the files of the repository into links between pages."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in outside_files() else f"docs/{here}")

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[0])).removeprefix("docs/")
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(link, markdown)


def outside_files() -> tuple[str, ...]:
    """Files outside docs/ that the site has under the same path, Markdown as pages."""
    found = sorted((ROOT / "experiments").rglob("*.md"))
    return (*FILES, *(path.relative_to(ROOT).as_posix() for path in found))


def generated_pages() -> dict[str, str]:
    """The Markdown of the pages about commands and modules, by their paths on the site."""
    pages, rows = {}, []
    for name in command_names():
        usage, groups = read_help(help_text(name))
        pages[f"commands/{name}.md"] = command_page(name, usage, groups)
        rows.append(f"| [`{name}`]({name}.md) | {markdown_text(usage.partition(chr(10))[0])} |")
    table = "\n".join(["| command | what it does |", "|---|---|", *rows])
    pages["commands/README.md"] = (
        "# Commands\n\nEach is called as `python -m spml_tf.NAME`, and is also installed as "
        f"`spml-tf-NAME`. These pages show what `--help` says.\n\n{table}\n"
    )
    for name, modules in documented_modules().items():
        blocks = "\n\n".join(f"::: {module}" for module in modules)
        pages[f"api/{name}.md"] = f"# {name}\n\n{blocks}\n"
    return pages


def command_names() -> list[str]:
    """The commands, as setup.cfg installs them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    scripts = config["options.entry_points"]["console_scripts"]
    return re.findall(r"= spml_tf\.(\w+):main", scripts)


def help_text(command: str) -> str:
    """What a command prints for --help."""
    main = importlib.import_module(f"spml_tf.{command}").main
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(["--help"])
    return printed.getvalue()


def read_help(text: str) -> tuple[str, list[Flags]]:
    """Divides the text of --help into its first lines and the flags by their headings."""
    usage, *blocks = re.split(r"\n\n(?=(?:\S.*\n)?  --)", text.rstrip())
    groups = []
    for block in blocks:
        heading = "" if block.startswith("  --") else block.partition("\n")[0]
        texts = re.findall(r"^  (--\S+)\n      (.*)$", block, re.M)
        groups.append(Flags(heading, dict(texts)))
    return usage, groups


def command_page(name: str, usage: str, groups: list[Flags]) -> str:
    """The page of a command."""
    lines = [f"# {name}", ""]
    for paragraph in usage.split("\n\n"):
        if paragraph.startswith("usage: "):
            lines += ["```text", *(line[7:] for line in paragraph.split("\n")), "```", ""]
        else:
            named = re.split(r"\n(?=[a-z_]+(?:, [^.:\n]+)?: )", markdown_text(paragraph))
            mark = "- " if len(named) > 1 else ""
            lines += [*(mark + text.replace("\n", " ") for text in named), ""]
    for heading, texts in groups:
        lines += [f"## {heading or 'Flags'}", "", "| flag | what it sets |", "|---|---|"]
        lines += [f"| {flag_cell(flag)} | {markdown_text(text)} |" for flag, text in texts.items()]
        lines.append("")
    return "\n".join(lines)


def flag_cell(flag: str) -> str:
    """A flag, its choices below it."""
    name, _, choices = flag.partition("=")
    return "<br>".join([f"`{name}`", *(f"`{choice}`" for choice in choices.split("|") if choice)])


def markdown_text(text: str) -> str:
    """Plain text as Markdown: its signs are themselves, flags are code."""
    pieces = re.split(r"(--\w+(?:=[\w.]*\w)?)", text)
    return "".join(
        f"`{piece}`" if number % 2 else re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", piece)
        for number, piece in enumerate(pieces)
    )


def documented_modules() -> dict[str, list[str]]:
    """The modules on each page: a folder that exports names itself, else the files in it."""
    package = ROOT / "spml_tf"
    pages = {"spml_tf": ["spml_tf", "spml_tf.labels", *(f"spml_tf.{x}" for x in command_names())]}
    for folder in sorted(path.parent for path in package.glob("*/__init__.py")):
        if "__all__" in (folder / "__init__.py").read_text("utf-8"):
            pages[folder.name] = [f"spml_tf.{folder.name}"]
        else:
            pages[folder.name] = list(_modules(folder))
    return pages


def _modules(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "assets" in parts:  # what is written beside results is no module
            continue
        yield ".".join(parts[:-1] if path.stem == "__init__" else parts)
