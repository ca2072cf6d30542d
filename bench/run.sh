#!/usr/bin/env bash
# Loads the modules, brings the stand-in image, and runs the benchmarks; for a guest of the lab.
set -euo pipefail
# shellcheck source=bench/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

help_of bench "" "$@"
load_modules
run_bench bench "$@"
