#!/usr/bin/env bash
# Known vulnerabilities of every locked package; exit status 1 where there is one. Asks PyPI's advisory service.
set -euo pipefail
cd "$(dirname "$0")/../.."
for lock in infra/locks/*.txt; do
  echo "audit: $lock"
  ${VENV:-.venv}/bin/uv tool run --from pip-audit==2.10.1 pip-audit --no-deps --disable-pip --strict -r "$lock" "$@"
done
