#!/usr/bin/env bash
# Installs what is missing: programs of the system, .venv, the pinned Python packages. Every make
# target runs this first with what it needs; with nothing missing it takes a few milliseconds.
#
#     local/install.sh deploy|local|dev [Debian package]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PATH:/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/libexec:/opt/homebrew/bin"

say() { printf '%-10s %s\n' install "$*"; }
fail() { printf 'herocache: %s\n' "$*" >&2; exit 1; }
have_any() { command -v "$@" >/dev/null; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Not every package has a wheel for a newer one.
PYTHON_FITS='import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))'

find_python() {
    local candidate why
    if [ -n "${PYTHON:-}" ]; then
        why="$("$PYTHON" -c "$PYTHON_FITS" 2>&1)" && echo "$PYTHON" && return
        fail "PYTHON=$PYTHON: ${why:-it is $("$PYTHON" --version 2>&1), and 3.10 to 3.14 is needed}."
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c "$PYTHON_FITS" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.10 to 3.14 is needed, found $(python3 --version 2>&1 || true)." \
        "Install one, or name one: make run PYTHON=/path/to/python3"
}

is_installed() {
    case "$1" in
        mariadb-server) have_any mariadbd mysqld ;;
        redis-server) have_any redis-server valkey-server ;;
        nodejs) have_any node ;;
        *) have_any "$1" ;;
    esac
}

missing_packages() {
    local package python="$1"
    for package in "${@:2}"; do
        is_installed "$package" || echo "$package"
    done
    packages_are_current || venv_works || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
}

# A server that apt starts by itself is not wanted here: we run our own. Only for packages that this
# script has just installed; a MariaDB or Redis that the machine already had is never touched.
stop_service() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$1"
    else
        as_root service "$1" stop
    fi
}

apt_install() {
    local log package
    log="$(mktemp)"
    say "$* with apt (a minute or two)"
    # A package source that is down matters only when the packages cannot be found without it.
    as_root apt-get -q update >"$log" 2>&1 || true
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 install "$@" >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt could not install $*: the reason is above, the whole log in $log"
    fi
    for package in "$@"; do
        case "$package" in
            mariadb-server) stop_service mariadb >>"$log" 2>&1 || true ;;
            redis-server) stop_service redis-server >>"$log" 2>&1 || true ;;
        esac
    done
    rm -f "$log"
}

install_packages() {
    [ $# -gt 0 ] || return 0
    if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }; then
        apt_install "$@"
        return
    fi
    fail "these are missing and cannot be installed from here: $*." \
        "As root on Debian or Ubuntu: apt-get install $*;" \
        "on Fedora: dnf install mariadb-server valkey; on macOS: brew install mariadb redis." \
        "Then run the same make command again."
}

venv_works() { .venv/bin/python -m pip --version >/dev/null 2>&1; }

# Each file includes the one before it. So .venv/installed of a larger set begins with the lines of a
# smaller one, and a larger set is never installed over again for a smaller one.
pinned() {
    case "$wanted" in
        deploy) cksum requirements.txt requirements-deploy.txt ;;
        local) cksum requirements.txt requirements-deploy.txt requirements-local.txt ;;
        dev) cksum requirements.txt requirements-deploy.txt requirements-local.txt \
            requirements-dev.txt ;;
        *) fail "local/install.sh: expected deploy, local or dev, got '$wanted'" ;;
    esac
}

install_python_packages() {
    local file="requirements-$wanted.txt"
    if ! venv_works; then
        say "making .venv with $("$1" --version)"
        "$1" -m venv --clear .venv
    fi
    say "$file into .venv (up to a minute)"
    rm -f .venv/installed
    # The files name all that is needed, with hashes: pip has nothing to find out or to build.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        --only-binary :all: --no-deps -r "$file" ||
        fail "pip could not install $file: the reason is above"
    printf '%s\n' "$pins" >.venv/installed
}

packages_are_current() {
    .venv/bin/python -c '' 2>/dev/null &&
        [[ "$(cat .venv/installed 2>/dev/null)" == "$pins"* ]]
}

# A .venv that is there keeps its Python.
tell_unused_python() {
    local there
    [ -n "${PYTHON:-}" ] && there="$(.venv/bin/python --version 2>/dev/null)" || return 0
    [ "$there" = "$("$PYTHON" --version 2>/dev/null)" ] ||
        say "PYTHON=$PYTHON is not used: .venv has $there; for another one: rm -r .venv"
}

wanted="${1:-}"
pins="$(pinned)"
tell_unused_python
if packages_are_current; then
    python=.venv/bin/python
else
    python="$(find_python)"
fi
# shellcheck disable=SC2046  # a list of words
install_packages $(missing_packages "$python" "${@:2}")
packages_are_current || install_python_packages "$python"
