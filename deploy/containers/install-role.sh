#!/bin/sh
# Runs inside the image build: installs one role into /opt/cairn from /wheels, by digest,
# checks whose `common` came, and lists what is in there (CycloneDX).
set -eu
role=$1

pip() {
    /installer/bin/pip --isolated --disable-pip-version-check --python /opt/cairn/bin/python \
        install --quiet --no-cache-dir --no-index --find-links /wheels --no-deps --require-hashes "$@"
}
pip -r "/locks/$role.lock"
pip -r /wheels/cairn.lock

# Another distribution on the public index is called `common`, too.
/opt/cairn/bin/python - <<'END'
from importlib.metadata import packages_distributions

owners = packages_distributions()["common"]
if owners != ["cairn-fl"]:
    raise SystemExit(f"the package `common` belongs to {owners}, expected cairn-fl")
END

mkdir -p /opt/cairn/share
/installer/bin/cyclonedx-py environment --output-reproducible --of JSON --sv 1.6 \
    -o /opt/cairn/share/sbom.cdx.json /opt/cairn/bin/python
