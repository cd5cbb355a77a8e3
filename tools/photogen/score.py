"""Compares readings with the truth of a set.

  cargo run -p reading --example read -- SET/*.* > readings.jsonl
  python3 score.py SET/truth.jsonl readings.jsonl [--accept 0.80]
"""
import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth")
    parser.add_argument("readings")
    parser.add_argument("--accept", type=float, default=0.80)
    given = parser.parse_args()
    truth = {row["file"]: row for row in lines(given.truth)}
    tally = defaultdict(lambda: dict(photos=0, exact=0, accepted=0, wrong_accepted=0, unit=0, with_unit=0))
    cpu = []
    for row in lines(given.readings):
        name = Path(row["file"]).name
        if name not in truth:
            continue
        facts = truth[name]
        value, sure = row.get("reading"), float(row.get("confidence") or 0)
        exact = value == (None if facts["value"] is None else str(facts["value"]))
        accepted = sure >= given.accept and not row.get("several") and not row.get("fault")
        shown = facts["unit"] if facts["show_unit"] else None
        if row.get("cpu_ms"):
            cpu.append(row["cpu_ms"])
        for group in ("all", facts["style"], facts["level"]):
            one = tally[group]
            one["photos"] += 1
            one["exact"] += exact
            one["accepted"] += accepted
            one["wrong_accepted"] += accepted and not exact
            one["with_unit"] += shown is not None
            one["unit"] += shown is not None and row.get("unit") == shown
        if not exact:
            print(f"{name}: {facts['text']} tenth={facts['tenth']} read {value} at {sure} {'ACCEPTED' if accepted else ''} "
                  f"fault={row.get('fault')} candidates={row.get('candidates')}")
    for group, one in tally.items():
        print(f"{group}: {one}")
    if cpu:
        cpu.sort()
        print(f"CPU ms a photo: median {statistics.median(cpu)}, 95th percentile {cpu[int(len(cpu) * 0.95)]}")


if __name__ == "__main__":
    main()
