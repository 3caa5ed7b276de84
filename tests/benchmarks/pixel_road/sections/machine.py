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
