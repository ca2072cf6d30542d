#!/usr/bin/env bash
# Loads the modules where the kernel takes some, brings the stand-in image, and runs the soak.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/common.sh
source "$here/common.sh"

case ${1:-} in
    -h | --help)
        echo "Usage: bench/soak.sh [OPTIONS OF python -m bench.soak]; results in SO1_LAB_RESULTS or ./soak"
        exit 0
        ;;
esac
load_modules_if_had
bring_image
cd "$here/.."
exec "$python" -m bench.soak --image "$image" --out "${SO1_LAB_RESULTS:-soak}" "$@"
