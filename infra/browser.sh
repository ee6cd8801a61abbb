#!/usr/bin/env bash
# Install what `make test-full` needs beside Python: a browser with its driver, and Prometheus' own rule checker.
# Debian's packages; where all three are there already it returns at once.
set -euo pipefail

command -v chromium >/dev/null && command -v chromedriver >/dev/null && command -v promtool >/dev/null && exit 0
command -v apt-get >/dev/null || {
  echo "browser: install chromium, chromium-driver and prometheus (promtool) by hand; their tests are skipped" >&2
  exit 0
}
as_root=$([ "$(id -u)" = 0 ] && echo "" || echo sudo)
$as_root apt-get update -q
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qy --no-install-recommends \
  chromium chromium-driver fonts-dejavu-core prometheus
