#!/usr/bin/env bash
# tools/build.sh [--tests] [TARGET...]: installs what is missing, configures and builds into
# build/release. Used by deploy/quickstart.sh and tests/run.sh, so that both share one build.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=OFF
if [ "${1:-}" = --tests ]; then tests=ON; shift; fi
[ ! -f build/release/tests-on ] || tests=ON  # never turn tests off again: that would rebuild nothing
bash tools/install-deps.sh
echo "build: configuring build/release"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! cmake --preset release -DMILLRACE_BUILD_TESTS=$tests >"$log" 2>&1; then
  cat "$log" >&2
  echo "build: configuring failed (see above)" >&2
  exit 1
fi
[ $tests = OFF ] || touch build/release/tests-on
grep -E 'CUDA backend' "$log" || true
echo "build: compiling with $(nproc) jobs"
NINJA_STATUS='[%f/%t %es] ' cmake --build --preset release -j "$(nproc)" ${@:+--target "$@"}
