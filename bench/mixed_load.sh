#!/usr/bin/env bash
# Loads the modules where the kernel takes some, brings the stand-in image, and runs the mixed load.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/common.sh
source "$here/common.sh"

case ${1:-} in
    -h | --help)
        echo "Usage: bench/mixed_load.sh [OPTIONS OF python -m bench.mixed_load]"
        exit 0
        ;;
esac
if ! bash "$here/../bash/load_modules.sh" >&2; then
    echo "mixed_load.sh: the modules could not be loaded: psutil is the source" >&2
fi
bring_image
cd "$here/.."
exec "$python" -m bench.mixed_load --image "$image" "$@"
