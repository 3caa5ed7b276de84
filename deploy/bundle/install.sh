#!/bin/sh
# Installs Cairn from this unpacked archive. Needs no network and asks none.
#
#   sh install.sh site        [PREFIX]   worker and courier, each in an environment of its own
#   sh install.sh worker      [PREFIX]
#   sh install.sh courier     [PREFIX]
#   sh install.sh aggregator  [PREFIX]
#   sh install.sh images                 load images/*.tar into podman (or docker)
#
# PREFIX is /opt/cairn unless given. Needs CPython 3.11 with venv on x86-64 Linux
# (PYTHON names another than python3.11). Installing a newer archive over an older one
# replaces the programs and touches no site, no federation and no key.
set -eu
cd "$(dirname "$0")"

fail() { echo "install.sh: $1" >&2; exit "$2"; }

[ $# -ge 1 ] || fail "say what to install: site, worker, courier, aggregator or images" 2
what=$1
prefix=${2:-/opt/cairn}

# The files against their list, and the list against the folder: nothing more, nothing less.
sha256sum --check --strict --quiet SHA256SUMS || fail "a file is not what it was; nothing was installed" 4
listed=$(sed 's/^[0-9a-f]*  //' SHA256SUMS | sort)
present=$(find . -type f ! -path ./SHA256SUMS | sed 's|^\./||' | sort)
[ "$listed" = "$present" ] || fail "a file is here that SHA256SUMS does not name; nothing was installed" 4

case $what in
    site) roles="worker courier" ;;
    worker | courier | aggregator) roles=$what ;;
    images)
        [ -d images ] || fail "this archive holds no images; use: sh install.sh site" 2
        engine=$(command -v podman || command -v docker) || fail "neither podman nor docker is here" 6
        for image in images/*.tar; do "$engine" load --input "$image"; done
        exit 0 ;;
    *) fail "there is no $what; choose site, worker, courier, aggregator or images" 2 ;;
esac

python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
[ -n "$python" ] || fail "no python3.11 here" 6
found=$("$python" -c 'import platform, sys; print(*sys.version_info[:2], platform.system(), platform.machine())')
[ "$found" = "3 11 Linux x86_64" ] || fail "needs CPython 3.11 on x86-64 Linux, found: $found" 6

# No configuration of this machine's pip, and no index, takes part.
for name in $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
export PIP_CONFIG_FILE=/dev/null

# A folder per release and a link to it: the old one stays until the new one is whole.
read -r version revision < VERSION
release=$version-$(echo "$revision" | cut -c 1-12)
for role in $roles; do
    target=$prefix/releases/$role-$release
    mkdir -p "$prefix/releases"
    # Made where it stays, for an environment knows its own place; complete only with the link.
    rm -rf "$target"
    "$python" -m venv "$target"
    for lock in "locks/$role.lock" locks/cairn.lock; do
        "$target/bin/python" -m pip install --isolated --quiet --disable-pip-version-check \
            --no-cache-dir --no-index --no-deps --find-links wheels --require-hashes -r "$lock"
    done
    "$target/bin/python" - <<'END'
from importlib.metadata import packages_distributions

owners = packages_distributions()["common"]
if owners != ["cairn-fl"]:
    raise SystemExit(f"the package `common` belongs to {owners}, expected cairn-fl")
END
    ln -sfn "releases/$role-$release" "$prefix/$role"
    echo "Installed $role $release: $prefix/$role/bin"
done
