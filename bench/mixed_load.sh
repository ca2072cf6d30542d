#!/usr/bin/env bash
# Loads the modules where the kernel takes some, brings the stand-in image, and runs the mixed load.
set -euo pipefail
# shellcheck source=bench/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

help_of bench.mixed_load "" "$@"
load_modules_if_had
run_bench bench.mixed_load --image "$image" "$@"
