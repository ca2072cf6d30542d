#!/usr/bin/env bash
# Sets up and runs the tests from a fresh clone: what CI runs, or one part of it.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly default_guests=(debian12 debian13)
# Guests that differ by their kernel alone, and the tests that such a difference can fail.
readonly kernel_guests=(debian12-5.10 debian12-rt debian13-rt debian13-backports)
readonly kernel_tests=(tests/vm/test_lab_fixtures.py tests/vm/test_load_modules.py
    tests/vm/test_modules_{figures,states,sharing,names,snapshot,readers,scale,fuzz}.py)
# A guest of another architecture, some times slower still: what differs there, and the main job.
readonly foreign_guests=(debian13-arm64)
readonly foreign_tests=(tests/vm/test_lab_fixtures.py tests/vm/test_load_modules.py
    tests/vm/test_modules_{figures,states}.py tests/vm/test_main_job.py
    tests/vm/test_bpf_{witness,agent}.py)
# shellcheck source=bash/lib/test_engine.sh
source "$root/bash/lib/test_engine.sh"
# shellcheck source=bash/lib/test_environment.sh
source "$root/bash/lib/test_environment.sh"

usage() {
    cat <<'TEXT'
Usage: ./bash/test.sh [--fast | --full]
       ./bash/test.sh lint
       ./bash/test.sh unit   [-k EXPR]
       ./bash/test.sh fleet  [--full] [-k EXPR]
       ./bash/test.sh docker [-k EXPR]
       ./bash/test.sh packages [-k EXPR]
       ./bash/test.sh coverage [-k EXPR]
       ./bash/test.sh vm     [-g GUEST]... [-k EXPR]

Without arguments: everything that CI runs. Installs what is missing (apt, through sudo where you
are not root), keeps its Python environment in ~/.cache/so1 (root: /var/cache/so1) and its guests in /var/cache/so1-lab.

  lint     linters and type checks (seconds)
  unit     tests that need no privilege (seconds)
  fleet    tests with real Prometheus, VictoriaMetrics and PostgreSQL (minutes)
  docker   tests with a real engine: the one that runs, or one of its own for the time
  packages the Debian packages, built and installed in Debian trees; the container image (with --full)
  vm       tests in guests with a real kernel under QEMU: debian12, debian13, sid; of the guests
           with another kernel (debian12-5.10, debian12-rt, debian13-rt, debian13-backports) the
           modules' and probes' tests; of debian13-arm64 these and the main job

  coverage unit and docker, measured: which lines and branches of agent/ none of them runs
           (agents that tests start are measured too, but for one that is killed)

  --fast   lint and unit only
  --full   all, with what is too long for CI and the other guests
  -g GUEST only this guest; repeatable
  -k EXPR  only tests that match, as pytest has it
  -h       this text

The last line counts all tests. Exit status 0 when none failed; in CI (CI=true) a vm layer that
could not run fails too.
TEXT
}

say() { printf '%s\n' "test.sh: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# --- what has to be there -------------------------------------------------------------------

# Runs a command as root with the variables that the tests and the package managers look at.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=CI,DOCKER_HOST,SO1_LAB_CACHE,SO1_LAB_MIRROR,PYTHONDONTWRITEBYTECODE,http_proxy,https_proxy,no_proxy,PIP_CERT,PIP_INDEX_URL,PIP_FIND_LINKS,SSL_CERT_FILE -- "$@"
    else
        die "this needs root and sudo is not installed; run it as root: su -c '$root/bash/test.sh'"
    fi
}

is_installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }

# install_missing PACKAGE...: installs those that are not there; fails when that cannot be done.
install_missing() {
    local package
    local -a missing=()
    command -v dpkg-query >/dev/null || die "only Debian and Ubuntu are set up by this script; needed: $*"
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    as_root apt-get -q update >&2 || say "apt-get update failed; trying with the lists that are there"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends \
        "${missing[@]}" >&2
}

# The packages of a layer, one a word.
packages_of() {
    case $1 in
        python) echo python3 python3-venv ;;
        lint) echo shellcheck ;;
        unit) echo gcc libc6-dev ;;
        fleet) echo prometheus prometheus-alertmanager victoria-metrics postgresql pgbouncer openssl ;;
        docker)
            echo procps busybox-static stress cron python3-bpfcc podman uidmap
            # Docker's own packages bring it, and conflict with the distribution's.
            if ! command -v runc >/dev/null; then echo runc; fi
            if apt-cache show rootlesskit >/dev/null 2>&1; then echo rootlesskit; fi
            # Ubuntu has it in packages that go with a kernel.
            if apt-cache show bpftool >/dev/null 2>&1; then echo bpftool; fi
            # Nobody's own engine is replaced by the distribution's.
            if ! engine_answers && ! command -v dockerd >/dev/null; then echo docker.io iptables; fi
            if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null \
                && apt-cache show docker-compose >/dev/null 2>&1; then
                echo docker-compose
            fi
            # From Debian 13 on the client is a package of its own.
            if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then
                echo docker-cli
            fi
            ;;
        packages)
            echo debootstrap debian-archive-keyring git systemd-container lintian mandoc man-db zsh fish python3-yaml
            packages_of docker
            ;;
        vm)
            echo qemu-system-x86 debootstrap e2fsprogs util-linux git
            # For guests of another architecture.
            [[ " ${guests[*]} " != *" ${foreign_guests[0]} "* ]] || echo qemu-system-arm qemu-user-static
            # On Ubuntu debootstrap does not bring the keys that Debian's releases are signed with.
            echo debian-archive-keyring
            ;;
    esac
}

# --- the layers -----------------------------------------------------------------------------

layers=()
number=0
of=0

# layer NAME COMMAND...: runs one layer; its report is expected in $results/NAME.xml.
layer() {
    local name=$1 status=0 begun=$SECONDS
    shift
    number=$((number + 1))
    say "[$number/$of] $name"
    "$@" || status=$?
    layers+=("$name,$((SECONDS - begun)),$status,$results/$name.xml")
    say "[$number/$of] $name: status $status after $((SECONDS - begun)) s"
}

# skip_layer NAME WHY
skip_layer() {
    number=$((number + 1))
    say "[$number/$of] $1 is skipped: $2"
    layers+=("$1,0,0,-,$2")
}

# run_pytest REPORT ARGUMENT...
run_pytest() {
    local report=$1
    local -a runner
    shift
    measured
    "${runner[@]}" pytest -p no:cacheprovider -q -o junit_family=xunit1 \
        --junit-xml="$results/$report.xml" \
        "${selection[@]}" "$@"
}

run_lint() { run_pytest lint tests/unit/test_linters.py; }

run_unit() {
    local -a beside
    side_by_side "$(nproc)"
    run_pytest unit "${beside[@]}" tests/unit --ignore=tests/unit/test_linters.py
}

# side_by_side N: sets $beside to what runs N of a layer's files at once; coverage.py measures one.
side_by_side() {
    beside=()
    [[ -n $measures ]] || beside=(-n "$1" --dist loadfile)
}

# measured: sets $runner to what runs a layer's pytest, with coverage.py where that is wanted.
measured() {
    runner=("$python" -m)
    [[ -z $measures ]] || runner+=(coverage run --data-file="$measures/data" -m)
}

run_fleet() {
    as_root "$fleet_python" -m pytest -p no:cacheprovider -q -o junit_family=xunit1 \
        --junit-xml="$results/fleet.xml" \
        "${selection[@]}" tests/fleet
}

# The same centre's tests on Debian 13's PostgreSQL, in a tree of its own.
run_fleet_17() {
    local tree
    tree=$(as_root "$fleet_python" -m tests.fleet.trixie) || return
    as_root env SO1_POSTGRES_ROOT="$tree" "$fleet_python" -m pytest -p no:cacheprovider -q \
        -o junit_family=xunit1 --junit-xml="$results/fleet-17.xml" "${selection[@]}" tests/fleet \
        --ignore=tests/fleet/test_metrics.py
}

run_docker() {
    local -a runner beside
    measured
    side_by_side 2 # mostly they wait, for ticks and for their own engines
    as_root "${runner[@]}" pytest -p no:cacheprovider -q -o junit_family=xunit1 \
        --junit-xml="$results/docker.xml" "${beside[@]}" \
        "${selection[@]}" tests/docker
}

run_packages() {
    as_root "$python" -m pytest -p no:cacheprovider -q -o junit_family=xunit1 \
        --junit-xml="$results/packages.xml" \
        "${selection[@]}" tests/packages
}

run_lab() {
    as_root "$python" -m pytest -p no:cacheprovider -q -o junit_family=xunit1 \
        --junit-xml="$results/lab.xml" \
        "${selection[@]}" tests/lab
}

run_vm() {
    local guest=$1 status=0
    local -a more=() tests=(tests/vm)
    if ((full)); then
        more=(-- --full)
    elif [[ $guest != "${guests[-1]}" && -z $expression ]]; then
        # What the kernel cannot change is shown once, in the last guest.
        more=(-- --kernel-only)
    fi
    if [[ " ${kernel_guests[*]} " == *" $guest "* ]]; then
        tests=("${kernel_tests[@]}")
        # 5.10 refuses the probes, which need atomics of 5.12 (docs/bpf.md).
        [[ $guest == *-5.10 ]] || tests+=(tests/vm/test_bpf_commands.py)
    fi
    [[ " ${foreign_guests[*]} " != *" $guest "* ]] || tests=("${foreign_tests[@]}")
    as_root "$python" -m tests.lab pytest "$guest" --timeout "$guest_timeout_s" \
        --results "$results/vm-$guest" ${expression:+-k "$expression"} "${tests[@]}" "${more[@]}" \
        || status=$?
    if [[ -e $results/vm-$guest/junit.xml ]]; then
        cp "$results/vm-$guest/junit.xml" "$results/vm-$guest.xml"
    fi
    return "$status"
}

# with_packages LAYER-KIND NAME FUNCTION...: runs it, or skips it saying what cannot be installed.
with_packages() {
    local kind=$1 name=$2
    shift 2
    # shellcheck disable=SC2046
    if install_missing $(packages_of "$kind"); then
        layer "$name" "$@"
    else
        skip_layer "$name" "the packages it needs cannot be installed: $(packages_of "$kind" | tr '\n' ' ')"
    fi
}

# Debian's servers start with their installation and at each boot; the tests want the programs alone.
install_without_starting() {
    local package guard=/usr/sbin/policy-rc.d status=0
    local -a new=()
    for package in "$@"; do
        is_installed "$package" || new+=("$package")
    done
    ((${#new[@]})) || return 0
    [[ ! -e $guard ]] || guard=""
    # shellcheck disable=SC2016
    [[ -z $guard ]] || as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 0755 "$1"' - "$guard"
    install_missing "${new[@]}" || status=$?
    [[ -z $guard ]] || as_root rm -f -- "$guard"
    if ((status == 0)) && [[ -d /run/systemd/system ]]; then
        as_root systemctl --quiet disable "${new[@]}" >&2 || say "could not disable ${new[*]}"
    fi
    return "$status"
}

fleet_layer() {
    # shellcheck disable=SC2046
    if install_without_starting $(packages_of fleet); then
        make_fleet_environment
        layer fleet run_fleet
        ((full == 0)) || layer fleet-17 run_fleet_17
    else
        skip_layer fleet "the packages it needs cannot be installed: $(packages_of fleet)"
    fi
}

docker_layer() {
    # shellcheck disable=SC2046
    if ! install_missing $(packages_of docker); then
        skip_layer docker "the packages it needs cannot be installed"
    elif ! start_engine; then
        skip_layer docker "no Docker engine can be started here"
    else
        import_images
        layer docker run_docker
        stop_own_engine
    fi
}

# Which lines and branches no layer ran; what is left uncovered is judged in docs/reports/coverage.md.
report_coverage() {
    (
        cd "$root"
        export COVERAGE_FILE=$measures/data
        "$python" -m coverage combine --quiet "$measures" && "$python" -m coverage report
    ) || say "nothing was measured"
    rm -rf -- "$measures"
}

finish() {
    local status=$?
    trap - EXIT
    stop_own_engine
    [[ -z $measures ]] || report_coverage
    if ((${#layers[@]} == 0)); then
        exit "$status"
    fi
    # A run that was interrupted has no closing line that could be taken for a whole one's.
    if ((status != 0)); then
        say "interrupted with status $status; reports so far are in $results"
        exit "$status"
    fi
    local -a strict=()
    [[ ${CI:-} == true ]] && strict=(--strict)
    say "reports, kernel logs and consoles are in $results"
    "$python" -m tests.lab summary "${strict[@]}" "${layers[@]}"
    exit $?
}

full=0
measures="" # where coverage.py writes
expression=""
guest_timeout_s=2100
guests=()
wanted=(lint unit fleet docker lab vm)

parse_arguments() {
    while (($#)); do
        case $1 in
            -h | --help)
                usage
                exit 0
                ;;
            --fast) wanted=(lint unit) ;;
            --full)
                full=1
                ((${#wanted[@]} == 1)) || wanted=(lint unit fleet docker packages lab vm)
                guest_timeout_s=7200
                ;;
            lint | unit | fleet | docker | packages | vm) wanted=("$1") ;;
            coverage)
                wanted=(unit docker)
                measures=wanted
                ;;
            -k)
                (($# > 1)) || die "-k needs an expression"
                expression=$2
                shift
                ;;
            -g)
                (($# > 1)) || die "-g needs a guest: python3 -m tests.lab list names them"
                guests+=("$2")
                shift
                ;;
            *)
                usage >&2
                exit 2
                ;;
        esac
        shift
    done
    if ((${#guests[@]} == 0)); then
        guests=("${default_guests[@]}")
        ((full == 0)) || guests+=(sid "${kernel_guests[@]}" "${foreign_guests[@]}")
    fi
}

main() {
    parse_arguments "$@"
    cd "$root"
    # Layers that run as root must leave nothing of root's in the checkout.
    export PYTHONDONTWRITEBYTECODE=1
    selection=()
    [[ -z $expression ]] || selection+=(-k "$expression")
    ((full)) && selection+=(--full)
    results=$(mktemp -d "${TMPDIR:-/tmp}/so1-test-XXXXXX")
    if [[ -n $measures ]]; then
        measures=$(mktemp -d "${TMPDIR:-/tmp}/so1-coverage-XXXXXX")
        chmod 1777 "$measures" # some tests run the agent as another user
    fi
    # shellcheck disable=SC2046
    install_missing $(packages_of python)
    make_environment
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    of=${#wanted[@]}
    local kind guest
    for kind in "${wanted[@]}"; do
        [[ $kind != vm ]] || of=$((of + ${#guests[@]} - 1))
    done
    for kind in "${wanted[@]}"; do
        case $kind in
            lint) with_packages lint lint run_lint ;;
            unit) with_packages unit unit run_unit ;;
            fleet) fleet_layer ;;
            packages)
                # For the tests' own server; without it they are skipped and name it.
                install_without_starting postgresql openssl || true
                with_packages packages packages run_packages
                ;;
            docker) docker_layer ;;
            lab) with_packages vm lab run_lab ;;
            vm)
                for guest in "${guests[@]}"; do
                    with_packages vm "vm-$guest" run_vm "$guest"
                done
                ;;
        esac
    done
}

# Tests source this file for its functions.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
