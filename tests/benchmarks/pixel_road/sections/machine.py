"""Speed, and what an aggregator without the key can learn."""

from tests.benchmarks.markdown import table


def speed(results):
    found = results["speed"]["all"]
    encode, disk = found["encode"], found["disk"]
    rows = [
        [
            row["what"],
            f"{row['measured']:g}",
            f"{row['target']:g}",
            "met" if row["met"] else "SHORT",
        ]
        for row in found["targets"]
    ]
    beside = "; ".join(f"{name} {value:.1f}" for name, value in encode["ns_per_pixel"].items())
    text = (
        "Synthetic pixels of 35 bands of 16 bits. In memory: processor time of one thread, median "
        "of turns. From disk: wall time, the page cache dropped before each turn, reading alone "
        "(plain reads of 4 MB) and reading, encoding and counting exact-first into one sketch of "
        "16 × 200,000 taking turns.\n\n"
        + table(["what", "measured", "target", ""], rows)
        + f"\nProcessor ns per pixel in memory: {beside}."
    )
    if "skipped" in disk:
        return text + f" From disk: skipped, {disk['skipped']}.\n"
    ratios = disk["over_read"]
    return text + (
        f" The file has {disk['bytes'] / 1e9:.2f} GB, read at {disk['read_GB_per_s']} GB/s; all "
        f"four tables instead of one, two threads: {ratios['tables, 2 threads']} times reading. "
        f"Load average during the run {found['load']['average']:.1f} on "
        f"{found['load']['cores']} cores.\n"
    )


TARGET_NS = 60.0  # processor time of a pixel, all passes
TARGET_S = 60.0  # of 1e9 pixels on two cores, disk to merged table


def whole_road(results):
    """Rows of (what, measured, target) of the whole road, as far as it was measured."""
    for job in results.get("big", {}).values():
        if "passes" in job:
            spent = job["passes"]["cpu_ns_per_pixel"]["all passes"]
            yield f"all passes in memory ({job['job']}), CPU ns per pixel", spent, TARGET_NS
        if "whole" in job and job["pixels"] >= 9e8:
            spent = job["whole"]["all"]["wall_s"]
            yield f"{job['pixels']:,} pixels, disk to table, seconds", spent, TARGET_S


def big(results):
    """The whole road, all passes, and slides beyond a machine's memory."""
    parts = [
        "`python -m tests.benchmarks.big_slides --pixels 1e8 -o build/pixel-results`. A plan's "
        "way from slides to tables takes three passes: survey, ranges, count. One made-up slide "
        "lies there under many names; every name is read, digested, counted and kept by itself, "
        "and what of it comes out of the page cache is not held apart. *As before*: the same "
        "sums by BLAS in float64 and numpy, equal bit for bit, in turns in the same run.\n"
    ]
    for name, job in sorted(results["big"].items()):
        loads = f"load average {job['load_before']} before, {job['load_after']} after"
        parts.append(f"**{name}**: {loads}, {job['cores']} cores, seed {job['seed']}.\n")
        if "passes" in job:
            found = job["passes"]["cpu_ns_per_pixel"]
            rows = []
            for step in ("survey", "ranges", "count", "all passes"):
                before = found.get(f"{step}, as before")
                same = "the same" if before is None else f"{before:.1f}"
                rows.append([step, f"{found[step]:.1f}", same])
            head = ["pass, in memory, one thread", "CPU ns per pixel", "as before"]
            parts.append(table(head, rows))
        if "whole" in job:
            whole = job["whole"]
            rows = [
                [step, f"{whole[step]['wall_s']:.1f}", f"{whole[step]['cpu_s']:.1f}"]
                for step in ("survey", "ranges", "count", "tables")
            ]
            head = [f"{job['pixels']:,} pixels, {whole['threads']} threads", "seconds", "CPU s"]
            parts.append(table(head, rows))
            parts.append(
                f"Together {whole['all']['wall_s']:.1f} s and {whole['all']['cpu_ns_per_pixel']} "
                f"CPU ns a pixel, reading, digest and sealed results of {job['names']} names "
                f"({job['bytes_read_a_pass'] / 1e9:.1f} GB a pass) included; at most "
                f"{whole['largest_MB']} MB of memory.\n"
            )
        if "shards" in job:
            shards = job["shards"]
            same = shards.get("different_keys_equal")
            parts.append(
                f"The count in {shards['shards']} shards by commands, {shards['at_once']} at a "
                f"time: {shards['count_wall_s']:.1f} s, and {shards['merge_wall_s']:.1f} s to "
                f"merge; {shards['cpu_s']:.0f} CPU s, at most {shards['largest_process_MB']} MB a "
                "process."
                + (
                    f" Equal to one process bit for bit, {same:,} different keys.\n"
                    if same
                    else " Not compared with one process in this run.\n"
                )
            )
    return "\n".join(parts)


def attack(results):
    rows = []
    for name, found in results["attack"]["all"].items():
        if not isinstance(found, dict) or "tier_1" not in found:
            continue
        e, d = found["tier_0_enumeration"], found["tier_0_prefix_tables"]
        wrong = found["tier_1"]
        guesses = sum(g["guesses"] for g in wrong.values())
        mean = sum(g["guesses"] * g["mean_recall"] for g in wrong.values()) / guesses
        chance = sum(g["guesses"] * g["chance_recall"] for g in wrong.values()) / guesses
        rows.append(
            [
                f"{name}, {found['rows']} × {found['columns']:,}",
                f"{e['recall']:.3f}; {e['core_minutes_for_all']:.0f}",
                f"{d['recall']:.3f}; {d['cpu_s']:.1f}",
                f"{guesses}: {mean:.4f}; {chance:.4f}",
                f"{found['tier_1_smallest_p_of_all_tests']:.2g}",
                f"{found['right_key_as_control']['mean_recall']:.3f}",
            ]
        )
    head = [
        "tables",
        "public seeds: recall of frequent keys; core-minutes to try all",
        "… with prefix tables: recall; seconds",
        "wrong keys: mean recall; chance",
        "smallest p, corrected",
        "the right key, as control",
    ]
    return (
        "`python -m tests.benchmarks.sketch_attack`, held by "
        "`tests/privacy/test_sketch_attack.py`. With public seeds a table names its frequent "
        "pixels to anybody who tries all keys; without the key, candidates rank no better than "
        "chance.\n\n" + table(head, rows)
    )
