# What the scripts here share: the interpreter of the agent, and the stand-in image of a guest.
# shellcheck shell=bash disable=SC2034 # used by who sources it
python=${SO1_PYTHON:-/opt/so1/venv/bin/python}
image=so1-alpine-standin:local

bring_image() {
    local archive=/opt/so1-lab/images/alpine.tar
    [[ -z $(docker image ls --quiet "$image") && -s $archive ]] || return 0
    docker import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' "$archive" "$image" >/dev/null
}

# Loads the modules where the kernel takes some, and says so where it does not.
load_modules_if_had() {
    bash "${BASH_SOURCE[0]%/*}/../bash/load_modules.sh" >&2 \
        || echo "${0##*/}: the modules could not be loaded: psutil is the source" >&2
}
