# shellcheck shell=bash disable=SC2154 # $work is generar_contenedores.sh's
# A small local image made of this host's programs, for a host without a registry. Uses
# generar_contenedores.sh's engine and its directory $work.
readonly STANDIN_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# copy_program NAME ROOT DIRECTORY: a program of this host, with the libraries that it names.
copy_program() {
    local path library
    path=$(type -P "$1")
    install -D -m 0755 -- "$path" "$2/$3/$1"
    while read -r library; do
        install -D -m 0755 -- "$library" "$2$library"
    done < <(ldd "$path" 2>/dev/null | grep -o '/[^ )]*' || true)
}

# build_standin NAME PROGRAM…: a local image of this host's programs, busybox being its shell. In a
# subshell of its own, called without a condition: under one, bash goes on after an error.
build_standin() (
    set -e
    name=$1 root=$work/root
    shift
    umask 022
    rm -rf -- "$root"
    mkdir -p "$root"/{bin,usr/bin,etc,proc,sys,dev,root}
    mkdir -m 1777 "$root/tmp"
    copy_program busybox "$root" bin
    for program in "$@"; do
        copy_program "$program" "$root" usr/bin
    done
    while read -r program; do
        [[ -e $root/bin/$program || -e $root/usr/bin/$program ]] \
            || ln -s busybox "$root/bin/$program"
    done < <("$root/bin/busybox" --list)
    tar -C "$root" --numeric-owner --owner=0 --group=0 -cf "$work/root.tar" .
    engine import -c "ENV PATH=$STANDIN_PATH" - "$name" <"$work/root.tar" >/dev/null
)
