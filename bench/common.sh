# shellcheck shell=bash
# The head of the scripts here: options, the interpreter of the agent, modules and the stand-in image
# of a guest.

bench_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${SO1_PYTHON:-/opt/so1/venv/bin/python}
# shellcheck disable=SC2034 # some of those who source it hand it on
image=so1-alpine-standin:local

bring_image() {
    local archive=/opt/so1-lab/images/alpine.tar
    [[ -z $(docker image ls --quiet "$image") && -s $archive ]] || return 0
    docker import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' "$archive" "$image" >/dev/null
}

load_modules() { bash "$bench_dir/../bash/load_modules.sh" >&2; }

# Where the kernel takes no modules that is said, and psutil is the source.
load_modules_if_had() {
    load_modules || echo "${0##*/}: the modules could not be loaded: psutil is the source" >&2
}

# help_of MODULE MORE ARGUMENT...: where the script's first argument asks for it, the usage, and the end.
help_of() {
    case ${3:-} in
        -h | --help)
            echo "Usage: bench/${0##*/} [OPTIONS OF python -m $1]$2"
            exit 0
            ;;
    esac
}

# run_bench MODULE ARGUMENT...: in the checkout, in place of the script.
run_bench() {
    bring_image
    cd "$bench_dir/.." || exit
    exec "$python" -m "$@"
}
