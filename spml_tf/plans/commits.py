"""The versions of the code that the runs of a folder were started with: commits.json."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import spml_tf
from spml_tf.system.errors import UserError
from spml_tf.system.files import write_json
from spml_tf.system.json_text import parse_json
from spml_tf.system.text_files import read_text


class Commits:
    """The record of a folder of runs.

    Args:
        folder: of the runs and of the record.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "commits.json"

    def read(self) -> dict[str, list[str]]:
        """Commits in the order they came, by the path of a run in the folder.

        Raises:
            UserError: the record is damaged.
        """
        if not self._path.exists():
            return {}
        try:
            found = parse_json(read_text(self._path))
            return {str(name): [str(x) for x in commits] for name, commits in found.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self._path}: cannot be read ({error}); remove it, the runs' code is then unknown"
            ) from None

    def add(self, run: Path) -> None:
        """Notes that today's code goes on with a run; one that was removed begins anew.

        Args:
            run: the run's folder.
        """
        found = self.read()
        key, commit = str(run.relative_to(self._folder)), _commit()
        before = found.get(key, []) if run.exists() else []
        found[key] = before if commit in before else [*before, commit]
        write_json(self._path, found)


def _commit() -> str:
    """The commit of the package's repository, + after it where files differ, or the version."""
    here = Path(spml_tf.__file__).parent

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)

    with contextlib.suppress(OSError):
        if git("ls-files", "--error-unmatch", "__init__.py").returncode == 0:
            changed = git("diff", "--quiet", "HEAD", "--", ".").returncode != 0
            return git("rev-parse", "--short=12", "HEAD").stdout.strip() + "+" * changed
    return f"version {spml_tf.__version__}"
