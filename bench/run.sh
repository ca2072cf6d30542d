#!/usr/bin/env bash
# Loads the modules, brings the stand-in image, and runs the benchmarks; for a guest of the lab.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${SO1_PYTHON:-/opt/so1/venv/bin/python}
image=so1-alpine-standin:local
archive=/opt/so1-lab/images/alpine.tar

case ${1:-} in
    -h | --help)
        echo "Usage: bench/run.sh [OPTIONS OF python -m bench]"
        exit 0
        ;;
esac
bash "$here/../bash/load_modules.sh" >&2
if [[ -z $(docker image ls --quiet "$image") && -s $archive ]]; then
    docker import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' "$archive" "$image" >/dev/null
fi
cd "$here/.."
exec "$python" -m bench "$@"
