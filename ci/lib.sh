# Shared by ci/demo and ci/test (bash). Prepares this checkout: Debian packages, then .venv.
# Needs nothing but a Debian-like machine; never asks; says what it does. CI=true: what is missing is a failure.

set -eu
top=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd -- "$top"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Prints the first interpreter that passes `python -c "$1"`; fails when there is none. One that every user can run comes
# before one of this user alone (below /root), so that what root made here is of use to the others.
python_that() {
    local place name path
    for place in /usr/local/bin /usr/bin ''; do
        for name in python3 python3.11 python3.12 python3.13 python3.14; do
            path=$(command -v "${place:+$place/}$name") || continue
            [ -z "$place" ] || readable_by_all "$(readlink -f "$path")" || continue
            if "$path" -c "$1" >/dev/null 2>&1; then
                say "$path"
                return 0
            fi
        done
    done
    return 1
}
# Whether every user can read a file: its own mode, and those of all folders above it.
readable_by_all() {
    local path=$1
    while :; do
        case $(stat -c %A "$path") in *r?[xt]) ;; *) return 1 ;; esac
        [ "$path" != / ] || return 0
        path=$(dirname "$path")
    done
}
any-python() { python_that 'import sys; assert sys.version_info >= (3, 11)'; }
any-venv() { python_that 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)'; }

# Prints "NAME NEED" for each package of packages.txt that is not there.
missing_packages() {
    local name need rest
    while read -r name need rest; do
        case $name in '' | '#'*) continue ;; esac
        # the columns are two or more spaces apart
        rest=${rest%%  *}
        eval "$rest" >/dev/null 2>&1 || say "$name $need"
    done < ci/packages.txt
}

install_packages() {
    local missing names
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    names=$(say "$missing" | cut -d' ' -f1)
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing Debian packages:" $names
        # an old list, or one of several sources that is down, may do; what is still missing is named below
        apt-get update -q >/dev/null || say "apt-get update failed"
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $names >/dev/null ||
            say "apt-get install failed"
    fi
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    say "missing Debian packages:" $(say "$missing" | cut -d' ' -f1) "(apt-get install them as root)"
    if say "$missing" | grep -q ' required$' || [ "${CI:-}" = true ]; then
        die "cannot go on without them"
    fi
}

# Makes .venv, unless there is one that was made in this folder, and installs into it when pyproject.toml changed.
make_venv() {
    local python stamp
    stamp="$top $(sha256sum < pyproject.toml)"
    if [ -x .venv/bin/sim ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    if ! .venv/bin/python -c 'import pip' 2>/dev/null || ! grep -qF "$top/.venv" .venv/pyvenv.cfg; then
        python=$(any-venv) || die "no Python 3.11 or newer that can make virtual environments"
        say "making .venv with $("$python" -V)"
        "$python" -m venv --clear "$top/.venv"
    fi
    say "installing snapcore, sim and the tools that test them into .venv"
    .venv/bin/python -m pip install -q -e '.[sim,dev]'
    say "$stamp" > .venv/stamp
}

install_packages
make_venv
export PATH="$top/.venv/bin:$PATH"
