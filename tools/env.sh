#!/usr/bin/env bash
# Creates the environment that requirements.lock pins and puts the project into it, editable.
# With uv when there is one or one can be installed beside the project, else with venv and pip.
# It writes into the named folder and .cache, and nowhere else.
set -euo pipefail

venv=${1:?usage: tools/env.sh FOLDER}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."

"$python" - <<'EOF' || { echo "env: Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11" >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 11))
EOF

find_uv() {
  if command -v uv; then return; fi
  local private=.cache/uv
  if [ ! -x "$private/bin/uv" ]; then
    "$python" -m venv "$private" >&2 && "$private/bin/python" -m pip install --quiet uv >&2 || return 0
  fi
  [ ! -x "$private/bin/uv" ] || echo "$private/bin/uv"
}

uv=${SNAPBRIDGE_UV-$(find_uv)}
if [ -n "$uv" ]; then
  echo "env: $venv with $("$uv" --version)"
  [ -x "$venv/bin/python" ] || "$uv" venv --quiet --python "$python" "$venv"
  "$uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes --requirement requirements.lock
  "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
else
  echo "env: $venv with venv and pip (no uv)"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --require-hashes --requirement requirements.lock
  "$venv/bin/python" -m pip install --quiet --no-deps --editable .
fi
