"""The pixel demonstration, and k-means beside it."""

from tests.benchmarks.markdown import table
from tests.benchmarks.pixel_road.sections.wording import each, of


def demo(results):
    jobs = sorted(results["demo"].values(), key=lambda r: r["wall_s"])
    alone = {}
    for job in jobs:
        found = job["clusters"]["named_by_one_site_right_at_the_others"]
        for site, share in found.items():
            alone.setdefault(site, []).append(share)
    kmeans = [r["purity"] for r in results.get("k-means", {}).values()]
    rows = [
        ["seeds", each([j["seed"] for j in jobs], "d")],
        [
            "different keys; keys that exact counting would let be named ({pixels} pixels, "
            "{sites} sites)".format(**jobs[0]["rule"]),
            each([j["keys"]["in_the_scene"] for j in jobs], ",")
            + "; "
            + each([j["keys"]["allowed_by_exact_counts"] for j in jobs], ","),
        ],
        [
            "share of these named by the federation (recall)",
            each([j["recall"] for j in jobs], ".3f"),
        ],
        [
            "named and not allowed; largest error of a count",
            each([j["keys"]["released_but_not_allowed"] for j in jobs], "d")
            + "; "
            + each([j["keys"]["largest_error_pixels"] for j in jobs], "d")
            + " pixels",
        ],
        [
            "share of the scene's pixels whose key was named (coverage)",
            each([j["coverage"] for j in jobs], ".3f"),
        ],
        [
            "clusters; kinds of ground among their names, of 16",
            each([j["clusters"]["count"] for j in jobs], "d")
            + "; "
            + each([j["clusters"]["kinds_named"] for j in jobs], "d"),
        ],
        [
            "labelled pixels that agree with the name of their cluster (purity)",
            each([j["clusters"]["purity"] for j in jobs], ".3f"),
        ],
        ["the same of the sites' maps", each(of(jobs, "clusters", "maps_agree_with_labels"))],
        ["beside it: the largest kind alone", each(of(jobs, "clusters", "largest_kind_alone"))],
        ["k-means, 24 clusters of all spectra in one place", each(kmeans) or "not computed"],
        [
            "named by the labels of ONE site, right at the two others",
            "; ".join(f"{site} {each(shares)}" for site, shares in sorted(alone.items())),
        ],
        [
            "bytes out of a site, both runs together",
            each([max(j["bytes_out"].values()) / 1e6 for j in jobs], ".1f") + " MB",
        ],
        [
            "ledgers intact",
            each([sum(v["verdict"] == "intact" for v in j["ledgers"].values()) for j in jobs], "d")
            + " of 3",
        ],
        [
            "seconds from nothing to the picture; load average at its end; processor seconds of "
            "the processes that it starts and watches",
            each([j["seconds"] for j in jobs], ".0f")
            + "; "
            + each([j["load"] for j in jobs], ".0f")
            + "; "
            + each([sum(j["processor_s"].values()) for j in jobs], ".0f"),
        ],
    ]
    return (
        "Indian Pines: an airborne scene of farmland and woods, 145 × 145 pixels of 20 m, 200 "
        "bands, 16 kinds of ground. **Remote sensing, not tissue**; it shows the machinery. Cut "
        "into 3 × 3 blocks, dealt as in a Latin square to three sites, which write OME-TIFF, "
        "folders of single-band TIFFs, and `.npy` with the bands in another order. Real "
        "processes, real TLS, both plans of `deploy/plans/pixels-demo*.toml`.\n\n"
        + table(["", "by seed"], rows)
        + "\nNames come from the labels of all three sites (each cluster by the commonest label of "
        "its pixels), so purity is a fit and not a prediction, and the number of bins was chosen "
        "on this scene; the row of one site's labels is what names are worth elsewhere, and it is "
        "little: fields of one crop differ more from site to site than crops do.\n"
    )
