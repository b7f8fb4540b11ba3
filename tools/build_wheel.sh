#!/usr/bin/env bash
# Builds the source distribution, the wheel from it, and the wheel from this folder; checks their
# metadata, and that both wheels hold the same files. VENV names the environment's folder (.venv).
set -euo pipefail
cd "$(dirname "$0")/.."
python="${VENV:=.venv}/bin/python"
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
"$python" -m build --outdir "$built/from_sdist" . >"$built/log" 2>&1 || { cat "$built/log" >&2; exit 1; }
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$built/direct" .
"$python" -m twine check --strict "$built"/*/*.whl "$built"/*/*.tar.gz
for folder in from_sdist direct; do
  "$python" -m zipfile --list "$built/$folder"/*.whl | awk '{ print $1 }' | sort >"$built/$folder.txt"
done
diff "$built/from_sdist.txt" "$built/direct.txt"
grep -c spml_tf/presets/ "$built/direct.txt" | sed 's/$/ presets in the wheel/'
