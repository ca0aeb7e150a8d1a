#!/usr/bin/env bash
# Builds millrace and runs every test. Installs missing Debian packages first; safe to repeat.
# Tests that need a GPU report themselves skipped where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/build.sh --tests
exec ctest --test-dir build/release --output-on-failure -j "$(nproc)" "$@"
