"""What setup.cfg cannot say: the package holds the flagfiles and plans of the folder experiments.

They are copied into wheels, as spml_tf/presets; see spml_tf/system/presets.py.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """Builds the package and copies the presets into it."""

    def run(self) -> None:
        """An editable installation reads experiments itself."""
        super().run()
        if self.editable_mode:
            return
        source, target = Path("experiments"), Path(self.build_lib, "spml_tf", "presets")
        for path in sorted(source.rglob("*")):
            if path.suffix in (".flags", ".toml"):
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithPresets})
