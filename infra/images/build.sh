#!/usr/bin/env bash
# Build the four images. `build.sh dev` loads them under the tag `dev` from bases by tag, for kind; `build.sh release
# REGISTRY` needs pinned bases and a clean tree, pushes, attaches SBOM and provenance, and writes the digests into the
# overlays of staging and production. Needs docker buildx.
set -euo pipefail
cd "$(dirname "$0")/../.."
mode=${1:?dev, or release REGISTRY}
source infra/images/bases.env
sha=$(git rev-parse HEAD)

zeroes=sha256:$(printf '0%.0s' {1..64})
if [ "$mode" = dev ]; then
  PYTHON_BASE=${PYTHON_BASE%@"$zeroes"} TRITON_BASE=${TRITON_BASE%@"$zeroes"}
else
  registry=${2:?release REGISTRY}
  case $PYTHON_BASE$TRITON_BASE in
    *"$zeroes"*) echo "build: bases are not pinned; run infra/images/pin.sh first" >&2; exit 2 ;;
  esac
  [ -z "$(git status --porcelain)" ] || { echo "build: uncommitted changes would be in no commit" >&2; exit 2; }
fi

for image in steps train gateway triton; do
  name=sidrec-$image
  case $image in steps|train) name=$name-python ;; esac
  arguments=(--file "infra/images/$image.Dockerfile" --build-arg "PYTHON_BASE=$PYTHON_BASE"
    --build-arg "TRITON_BASE=$TRITON_BASE" --build-arg "GIT_SHA=$sha")
  if [ "$mode" = dev ]; then
    docker buildx build "${arguments[@]}" --load --tag "$name:dev" .
    continue
  fi
  docker buildx build "${arguments[@]}" --push --tag "$registry/${name#sidrec-}:$sha" --sbom=true \
    --provenance=mode=max --metadata-file "/tmp/$name.json" .
  digest=$(python3 -c "import json, sys; print(json.load(open(sys.argv[1]))['containerimage.digest'])" "/tmp/$name.json")
  for overlay in staging production; do
    (cd "infra/k8s/overlays/$overlay" && kustomize edit set image "$name=$registry/${name#sidrec-}@$digest")
  done
  echo "$name $registry/${name#sidrec-}@$digest"
done
