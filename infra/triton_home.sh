#!/usr/bin/env bash
# Make VENV/triton: the tritonserver of the pinned wheel, and its stub's environment beside it. triton_home.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${1:?the virtual environment}
OVERLAY=infra/locks/triton-overlay.txt
pip="$VENV/bin/python -m pip --disable-pip-version-check -q"

# tritonserver's Python stub: numpy 1.26 in front, everything else from the venv (one .pth line).
stub=$VENV/triton/stub
rm -rf "$VENV/triton"
"$VENV/bin/python" -m venv --without-pip "$stub"
site=$stub/lib/python3.11/site-packages
$pip install --no-deps --target "$site" "$(grep '^numpy' "$OVERLAY")"
echo "import site; site.addsitedir('$(cd "$VENV" && pwd)/lib/python3.11/site-packages')" > "$site/zz_project.pth"
$pip install --no-deps --target "$VENV/triton/wheel" "$(grep '^nvidia-pytriton' "$OVERLAY")"
ln -sf ../../python_backend_stubs/3.11/triton_python_backend_stub \
  "$VENV/triton/wheel/pytriton/tritonserver/backends/python/triton_python_backend_stub"
