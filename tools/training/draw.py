"""Draws lines or photos to train with and keeps them in a file.

  python3 draw.py lines OUT.npz --count 24000
  python3 draw.py photos OUT.npz --count 900
"""
import argparse
from pathlib import Path

import numpy as np

import data
import drawn

SEEDS = dict(lines=7102, photos=7103)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SEEDS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    seed = SEEDS[given.what]
    if given.what == "lines":
        pixels, widths, labels = drawn.lines(seed, given.count, given.workers)
        np.savez(given.out, pixels=pixels, widths=widths, labels=labels)
        return
    photos = drawn.photos(seed, given.count, data.WHOLE, given.workers)
    lines = np.array([line or [0] * 6 for _, _, line in photos], np.float32)
    np.savez(given.out, pixels=np.stack([pixels for pixels, *_ in photos]), roles=np.array([role for _, role, _ in photos]), lines=lines)


if __name__ == "__main__":
    main()
