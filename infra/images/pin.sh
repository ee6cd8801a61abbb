#!/usr/bin/env bash
# Write the digests that the bases' tags have now into bases.env. Run by a release, reviewed, committed; needs docker.
set -euo pipefail
cd "$(dirname "$0")"
while IFS='=' read -r name image; do
  case $name in ''|'#'*) continue ;; esac
  tag=${image%@*}
  digest=$(docker buildx imagetools inspect "$tag" --format '{{.Manifest.Digest}}')
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "pin: no digest of $tag, seen '$digest'" >&2; exit 1; }
  sed -i "s|^$name=.*|$name=$tag@$digest|" bases.env
  echo "$name=$tag@$digest"
done < <(cat bases.env)
