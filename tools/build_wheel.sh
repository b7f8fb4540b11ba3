#!/usr/bin/env bash
# Builds the source distribution, the wheel from it, and the wheel from the files of the repository;
# checks their metadata, and that both wheels hold the same files. VENV names the environment's
# folder (.venv).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath --no-symlinks "${VENV:=.venv}/bin/python")
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
mkdir "$built/tree"
{ git ls-files -z 2>/dev/null || find . -type f -not -path './.*' -print0; } |
  xargs -0 cp --parents --target-directory="$built/tree"
cd "$built"
"$python" -m build --outdir from_sdist tree >log 2>&1 || { cat log >&2; exit 1; }
"$python" -m pip wheel --quiet --no-deps --wheel-dir direct ./tree
"$python" -m twine check --strict ./*/*.whl from_sdist/*.tar.gz
for folder in from_sdist direct; do
  "$python" -m zipfile --list $folder/*.whl | awk '{ print $1 }' | sort >$folder.txt
done
diff from_sdist.txt direct.txt
grep -c spml_tf/presets/ direct.txt | sed 's/$/ presets in the wheel/'
