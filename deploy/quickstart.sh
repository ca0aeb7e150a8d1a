#!/usr/bin/env bash
# Quick start on one machine: builds millrace, starts a planner and two workers on loopback whose
# memory budgets are too small for the demo model alone, plans it over both, and runs it.
#
#   deploy/quickstart.sh ["a prompt"]
#
# Installs missing Debian packages first; safe to repeat; leaves no process behind.
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-"ROMEO:
 But soft,"}
budget=${MILLRACE_WORKER_BUDGET:-38MiB}   # per worker, the worker's own process included
bin=build/release/bin

bash tools/build.sh millrace millrace-planner millrace-worker

run_dir=$(mktemp -d)
pids=()
cleanup() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$run_dir"
}
trap cleanup EXIT

# wait_for WHAT LOG COMMAND...: up to 20 s until COMMAND succeeds.
wait_for() {
  local what=$1 log=$2
  shift 2
  for _ in $(seq 200); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "quickstart: $what did not come up within 20 s; its log:" >&2
  cat "$log" >&2
  exit 1
}

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

step "One planner and two workers on loopback, $budget each"
"$bin/millrace-planner" --listen 127.0.0.1:0 --port-file "$run_dir/planner" 2>"$run_dir/planner.log" &
pids+=($!)
wait_for "the planner" "$run_dir/planner.log" test -s "$run_dir/planner"
planner=127.0.0.1:$(cat "$run_dir/planner")
for w in worker-0 worker-1; do
  "$bin/millrace-worker" --name "$w" --listen 127.0.0.1:0 --port-file "$run_dir/$w" \
    --planner "$planner" --host-memory "$budget" --devices cpu --threads 1 2>"$run_dir/$w.log" &
  pids+=($!)
done
for w in worker-0 worker-1; do
  wait_for "$w" "$run_dir/$w.log" grep -q registered "$run_dir/$w.log"
done
"$bin/millrace" status --planner "$planner"

step "The plan"
"$bin/millrace" plan --planner "$planner" --ctx 256

step "The text"
"$bin/millrace" run --planner "$planner" --ctx 256 -n 96 --temp 0.7 --seed 7 -p "$prompt"

step "The cluster afterwards"
sleep 0.5  # one heartbeat
"$bin/millrace" status --planner "$planner"
echo
echo "quickstart: done. Try: $bin/millrace run -p \"Fellow citizens,\""
