#!/usr/bin/env bash
# Loads the modules, brings the stand-in image, and runs the benchmarks; for a guest of the lab.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/common.sh
source "$here/common.sh"

case ${1:-} in
    -h | --help)
        echo "Usage: bench/run.sh [OPTIONS OF python -m bench]"
        exit 0
        ;;
esac
bash "$here/../bash/load_modules.sh" >&2
bring_image
cd "$here/.."
exec "$python" -m bench "$@"
