#!/usr/bin/env bash
# Make the environment that `make run` and `make test` use; a second call finds its stamp and returns at once.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3.11}
VENV=${VENV:-.venv}
LOCK=infra/locks/python-3.11.txt
OVERLAY=infra/locks/triton-overlay.txt
STAMP=$VENV/.sidrec-setup

wanted=$(cat pyproject.toml "$LOCK" "$OVERLAY" infra/setup.sh infra/triton_home.sh | sha256sum | cut -d' ' -f1)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
  exit 0
fi

command -v "$PYTHON" >/dev/null || {
  echo "setup: '$PYTHON' is not on PATH; sidrec needs CPython 3.11 (set PYTHON=/path/to/python3.11)" >&2
  exit 2
}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip="$VENV/bin/python -m pip --disable-pip-version-check -q"

echo "setup: installing the locked environment into $VENV (a few minutes the first time)"
$pip install "uv==0.13.8"
# torch goes through pip first, so that a CPU build offered by the machine's own wheel folder is taken.
$pip install torch==2.13.0 -c "$LOCK"
"$VENV/bin/uv" pip install -q --compile-bytecode --python "$VENV/bin/python" -e '.[all,bench,dev]' -c "$LOCK"

# Machine code of the search, once: a server's start is no time to compile.
"$VENV/bin/python" -c 'from sidrec.decoding.native import compile_ahead; compile_ahead()'

bash infra/triton_home.sh "$VENV"

echo "$wanted" > "$STAMP"
echo "setup: done"
