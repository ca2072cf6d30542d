#!/usr/bin/env bash
# Loads the modules where the kernel takes some, brings the stand-in image, and runs the soak.
set -euo pipefail
# shellcheck source=bench/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

help_of bench.soak "; results in SO1_LAB_RESULTS or ./soak" "$@"
load_modules_if_had
run_bench bench.soak --image "$image" --out "${SO1_LAB_RESULTS:-soak}" "$@"
