"""How figures of several seeds, codecs and grains are said."""

CODEC = {"reduced": "8 components", "all-bands": "all bands"}


def columns_of(jobs):
    """Jobs of all seeds by (codec, grain), components first."""
    columns = {}
    for name, job in sorted(jobs.items(), key=lambda item: item[0].split("/")[0] != "reduced"):
        codec, grain, _ = name.split("/")
        columns.setdefault((codec, grain), []).append(job)
    return columns


def of(jobs, *keys):
    out = []
    for job in jobs:
        for key in keys:
            job = job[key]
        out.append(job)
    return out


def each(values, spec=".3f"):
    """All values, or one when they read alike."""
    said = [format(value, spec) for value in values]
    return said[0] if len(set(said)) == 1 else ", ".join(said)


def spread(values, spec):
    low, high = format(min(values), spec), format(max(values), spec)
    return low if low == high else f"{low} – {high}"
