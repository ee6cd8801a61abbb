#!/usr/bin/env bash
# What the locked environment is made of, as CycloneDX JSON: sbom.sh [FILE]. Images carry their own, whole, as an
# attestation (build.sh release): docker buildx imagetools inspect IMAGE --format '{{json .SBOM}}'
set -euo pipefail
cd "$(dirname "$0")/../.."
${VENV:-.venv}/bin/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py environment "${VENV:-.venv}/bin/python" \
  --of JSON -o "${1:-sbom.json}"
