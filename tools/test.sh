#!/usr/bin/env bash
# Installs spml_tf with its tests' needs into a virtual environment, builds the documentation with
# warnings as errors, and runs lint, types and tests.
# Arguments go to pytest, for instance `-m slow`. VENV names the environment's folder (.venv).
set -euo pipefail
cd "$(dirname "$0")/.."
python="${VENV:=.venv}/bin/python"
[ -x "$python" ] || python3 -m venv "$VENV"
"$python" -m pip install --quiet --editable '.[test]'
"$python" -m ruff check .
"$python" -m mypy
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
# Not with --quiet, which hides the warnings from --strict too.
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict --site-dir "$site"
# With worksteal a process gets the tests of a file in a row, whose shared runs it then has.
"$python" -m pytest --numprocesses=2 --dist=worksteal "$@"
