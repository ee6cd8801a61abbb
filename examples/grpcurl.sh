#!/bin/sh
# sh examples/grpcurl.sh HOST:PORT
#
# Sends recommend.json (bytes are base64 there) to the gRPC door. The answer's tensors come as raw bytes, in the order
# of `outputs`: a text is preceded by its length in four bytes, numbers are little-endian.
set -eu
here=$(dirname "$0")
protoset=$(mktemp)
trap 'rm -f "$protoset"' EXIT
"${PYTHON:-python3}" "$here/protoset.py" "$protoset"
grpcurl -plaintext -protoset "$protoset" -max-time 2 -d @ "$1" inference.GRPCInferenceService/ModelInfer \
  < "$here/recommend.json"
