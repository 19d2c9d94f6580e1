# shellcheck shell=bash
# Functions of quickstart.sh and test.sh; sourced, with the root of the checkout as the current directory.
# Exit codes are those of the program: 1 a defect, 4 the environment.

packages=(build-essential cmake pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libcurl4-openssl-dev
    libjansson-dev libpcre2-dev libutf8proc-dev libcmocka-dev)

say() {
    printf '== %s\n' "$*" >&2
}

die() { # die CODE TEXT...
    local code=$1
    shift
    printf 'error: %s\n' "$@" >&2
    exit "$code"
}

# run_quietly LOG COMMAND...: the output goes to LOG; its end is shown when the command fails.
run_quietly() {
    local log=$1 status=0
    shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        tail -n 40 "$log" >&2
        printf 'failed (%d): %s\n  the whole output: %s\n' $status "$*" "$log" >&2
    fi
    return $status
}

package_is_missing() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" != installed ]
}

# Installs what is missing, as root or by sudo without a password. SMGPT_NO_INSTALL=1: libraries come from
# elsewhere, CMake will say what it does not find.
install_packages() {
    if [ -n "${SMGPT_NO_INSTALL:-}" ]; then
        return
    fi
    if ! command -v dpkg-query >/dev/null; then
        say "packages: no Debian here, taking what CMake finds"
        return
    fi
    local package missing=() root=()
    for package in "${packages[@]}"; do
        if package_is_missing "$package"; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "packages: all there"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            printf 'missing packages: %s\n' "${missing[*]}" >&2
            printf '  hint: as root: apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
            printf '  hint: where the libraries come from elsewhere: SMGPT_NO_INSTALL=1 %s\n' "$0" >&2
            exit 4
        fi
        root=(sudo -n)
    fi
    say "packages: installing ${missing[*]}"
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o Acquire::Retries=3
        -o DPkg::Lock::Timeout=300)
    # One unreachable extra source fails the update; what is needed may be there all the same.
    run_quietly build/apt-update.log "${apt[@]}" update || true
    run_quietly build/apt-install.log "${apt[@]}" install --no-install-recommends "${missing[@]}" ||
        die 4 "packages could not be installed: ${missing[*]}"
}

# build_program TARGET: smgpt-dist, or all with the tests. An unchanged tree is a matter of a second.
build_program() {
    local home
    home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' build/CMakeCache.txt 2>/dev/null || true)
    if [ -n "$home" ] && [ "$home" != "$(pwd -P)" ]; then
        say "build: build/ was made for $home, starting anew"
        rm -rf build
    fi
    say "build: $1 in build/, with $(nproc) jobs"
    run_quietly build/configure.log cmake -S . -B build -DCMAKE_BUILD_TYPE=Release || die 4 "cannot be configured"
    run_quietly build/build.log cmake --build build -j "$(nproc)" --target "$1" || die 1 "cannot be built"
}

# Cores as mpirun counts them: threads of one core are one place for a rank.
core_count() {
    local cores
    cores=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l || true)
    if [ "${cores:-0}" -lt 1 ] || [ "$cores" -gt "$(nproc)" ]; then
        cores=$(nproc)
    fi
    echo "$cores"
}

# run_ranks N PROGRAM...: N ranks on this machine.
run_ranks() {
    local n=$1 command
    shift
    # Not tied to cores: a rank's threads share what the machine has.
    command=(mpirun --bind-to none -np "$n")
    if [ "$(core_count)" -lt "$n" ]; then
        command+=(--oversubscribe)
    fi
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    # Containers forbid one process to read another's memory; without this each message warns.
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
    say "${command[*]} $*"
    "${command[@]}" "$@"
}
