#!/usr/bin/env bash
# Loads the modules where the kernel takes some, brings the stand-in image, and runs the soak.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${SO1_PYTHON:-/opt/so1/venv/bin/python}
image=so1-alpine-standin:local
archive=/opt/so1-lab/images/alpine.tar

case ${1:-} in
    -h | --help)
        echo "Usage: bench/soak.sh [OPTIONS OF python -m bench.soak]; results in SO1_LAB_RESULTS or ./soak"
        exit 0
        ;;
esac
if ! bash "$here/../bash/load_modules.sh" >&2; then
    echo "soak.sh: the modules could not be loaded: psutil is the source" >&2
fi
if [[ -z $(docker image ls --quiet "$image") && -s $archive ]]; then
    docker import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' "$archive" "$image" >/dev/null
fi
cd "$here/.."
exec "$python" -m bench.soak --image "$image" --out "${SO1_LAB_RESULTS:-soak}" "$@"
