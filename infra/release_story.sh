#!/usr/bin/env bash
# A release from first champion to rollback, on the shipped data, in a state folder of its own; prints docs/release-story.md.
#   bash infra/release_story.sh > docs/release-story.md
# CHAMPION and CHALLENGER are recipes, the latter by default the former with another seed; SIDREC_HOME is where it all
# lies.
set -euo pipefail
cd "$(dirname "$0")/.."

CHAMPION=${CHAMPION:-pipelines/recipes/s2gr_retail.yaml}
export SIDREC_HOME=${SIDREC_HOME:-$(mktemp -d)/home}
export SIDREC_ACTOR=ada COLUMNS=120
mkdir -p "$SIDREC_HOME"
if [ -z "${CHALLENGER:-}" ]; then
  CHALLENGER=$SIDREC_HOME/challenger.yaml
  sed -e 's/^seed: .*/seed: 1/' "$CHAMPION" > "$CHALLENGER"
fi
PORTS=${PORTS:---grpc-port 18001 --gateway-port 13000}

# Say a command, run it, and keep the end of what it says; statuses other than 0 are said too: gates speak by them.
tell() {
  local status=0
  printf '\n```\n$'
  for word in "${@//$SIDREC_HOME/.sidrec}"; do
    case $word in *" "*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '\n'
  "$@" 2>>"$SIDREC_HOME/story.err" | tail -n "${KEEP:-60}" | sed -e 's/[[:space:]]*$//' -e "s#$SIDREC_HOME#.sidrec#g" || status=$?
  [ "$status" = 0 ] || printf '[exit status %s]\n' "$status"
  printf '```\n'
}
newest() { sidrec bundle list --json | python -c 'import json, sys; print(json.load(sys.stdin)["bundles"][0]["bundle_id"])'; }

cat <<'TEXT'
# A release, from the first champion to the way back

What one release looks like on the shipped data, command by command. `bash infra/release_story.sh > docs/release-story.md`
writes this page anew; `pytest -m slow tests/e2e/test_release_story.py` goes the same way at toy size and checks what is
claimed. The traffic is a replay of customers who bought what they bought whatever they were shown: it proves the
plumbing, and no arm can win by it.
TEXT
printf '\nWritten at commit %s on a machine of %s cores.\n' "$(git rev-parse --short HEAD)" "$(getconf _NPROCESSORS_ONLN)"
cat <<'TEXT'

## A champion

A pipeline fits, judges and registers a bundle; it promotes nothing.
TEXT
KEEP=8 tell sidrec run --recipe "$CHAMPION"
first=$(newest)
tell sidrec promote --first --reason "first bundle of this installation" --no-deploy
tell sidrec serve --detach $PORTS
trap 'sidrec stop >&2' EXIT
before=$(date -u -d "1 second" +%Y-%m-%dT%H:%M:%S)

cat <<'TEXT'

## A challenger

Another bundle goes through the same pipeline and the same gates, and is judged against the champion too.
TEXT
KEEP=8 tell sidrec run --recipe "$CHALLENGER"
second=$(newest)

cat <<'TEXT'

## An experiment

What decides is written down, and frozen, before the first user is exposed.
TEXT
cat > "$SIDREC_HOME/plan.yaml" <<YAML
experiment: second-try
control: champion
treatment: challenger
shares: {champion: 0.5, challenger: 0.5}
bundles: {challenger: $second}
primary: {name: items taken per user, numerator: hits}
minimum_effect: 0.05
guardrails: [{metric: {name: requests, numerator: requests}, margin: 0.05}]
window_days: 1
min_users: 100
planned_users: 2000
max_users: 4000
YAML
printf '\n```yaml\n'; cat "$SIDREC_HOME/plan.yaml"; printf '```\n'
tell sidrec ab plan "$SIDREC_HOME/plan.yaml"
tell sidrec ab start second-try --reason "does the second one sell more" --accept-inconclusive --second-approver grace
tell sidrec replay --from 2010-11-01 --to "${LAST_DAY:-2010-11-14}"
tell sidrec ab readout second-try --html "$SIDREC_HOME/readout.html"
tell sidrec ab ramp second-try --share 0.6 --reason "no guardrail is broken"
tell sidrec ab stop second-try --reason "the story goes on"

cat <<'TEXT'

## A promotion, and the way back

The release owner decides otherwise than the figures, with a second person, and then meets a complaint.
TEXT
tell sidrec promote "$second" --reason "to show the way back" --accept-inconclusive --second-approver grace
tell sidrec recommend --user 17850
tell sidrec rollback --reason "complaints"
tell sidrec recommend --user 17850

cat <<'TEXT'

## What the ledger says

Who asked for what, what was served at any time, and that no byte of it was changed.
TEXT
tell sidrec ledger show
tell sidrec ledger live --at "$before"
tell sidrec ledger live
tell sidrec ledger verify
