#!/bin/sh
# sh examples/curl.sh http://HOST:PORT ITEM
#
# Asks the gateway for five items; with SIDREC_GATEWAY_TOKEN set it sends the token. `deadline_ms` is how long the
# caller waits: after it curl gives up, and the server knows before.
set -eu
curl --silent --show-error --fail-with-body --max-time 2 \
  --header 'content-type: application/json' \
  ${SIDREC_GATEWAY_TOKEN:+--header "authorization: Bearer $SIDREC_GATEWAY_TOKEN"} \
  --data "{\"history\": [\"$2\"], \"k\": 5, \"deadline_ms\": 2000, \"context\": {\"surface\": \"example\"}}" \
  "$1/v1/recommend"
