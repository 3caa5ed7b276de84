#!/bin/sh
# Runs inside the image build, by digest and from /wheels alone:
#   install-role.sh needed ROLE   what a role depends on, into /opt/cairn
#   install-role.sh cairn  ROLE SHA256   Cairn itself, into /cairn, to be laid over it; checks
#                                 whose `common` came, and lists all that is there (CycloneDX)
set -eu
step=$1 role=$2

pip_install() {
    /installer/bin/pip --isolated --disable-pip-version-check --python /opt/cairn/bin/python \
        install --quiet --no-cache-dir --no-index --find-links /wheels --no-deps --require-hashes "$@"
}

if [ "$step" = needed ]; then
    pip_install -r "/locks/$role.lock"
    exit 0
fi

grep -q "sha256:$3\$" /wheels/cairn.lock || { echo "not the wheel that was asked for" >&2; exit 1; }
pip_install --prefix /cairn -r /wheels/cairn.lock
cp -a /cairn/. /opt/cairn/

# Another distribution on the public index is called `common`, too.
/opt/cairn/bin/python - <<'END'
from importlib.metadata import packages_distributions

owners = packages_distributions()["common"]
if owners != ["cairn-fl"]:
    raise SystemExit(f"the package `common` belongs to {owners}, expected cairn-fl")
END

mkdir -p /cairn/share
/installer/bin/cyclonedx-py environment --output-reproducible --of JSON --sv 1.6 \
    -o /cairn/share/sbom.cdx.json /opt/cairn/bin/python
