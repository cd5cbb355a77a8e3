"""A short training run on a dozen drawn photos, on any machine: fails unless both losses fall.

  python3 smoke.py

Writes a folder of the data set's form (labels.jsonl and images/), packs it, and trains a few steps: some minutes on one core.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import drawn
from lines import DRUM

HERE = Path(__file__).resolve().parent
SEED, PHOTOS = 7104, 12
STEPS = dict(locator=(24, 2), line_reader=(24, 24))


def labelled(folder):
    """Writes drawn photos with labels as people would set them."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "labels.jsonl", "w", encoding="utf-8") as rows:
        for index in range(PHOTOS):
            pixels, role, line = drawn.photo(SEED, 640, index)
            if line is None:
                continue
            x, y, length, height, cosine, sine = line
            text = f"{10 ** 5 + index * 7919}"
            characters = []
            for place, digit in enumerate(text):
                along = ((place + 0.5) / len(text) - 0.5) * length
                wide, (cx, cy) = length / len(text) * 0.7, (x + cosine * along, y + sine * along)
                characters.append([digit, [cx - wide / 2, cy - height / 2, cx + wide / 2, cy + height / 2]])
            box = [x - length / 2, y - height, x + length / 2, y + height]
            row = dict(file=f"{index}.jpg", kind="analog" if role == DRUM else "digital", label=text, width=pixels.shape[1], height=pixels.shape[0],
                       odometer=[box], characters=characters)
            rows.write(json.dumps(row) + "\n")
            Image.fromarray(pixels).save(folder / "images" / row["file"], quality=85)


def run(*given):
    subprocess.run([sys.executable, *map(str, given)], cwd=HERE, check=True)


def main():
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        labelled(made / "photos")
        run("pack.py", made / "photos", made / "pack.zip")
        run("draw.py", "lines", made / "lines.npz", "--count", 250)
        run("draw.py", "photos", made / "drawn.npz", "--count", 6)
        for what, (steps, batch) in STEPS.items():
            kept = made / ("drawn.npz" if what == "locator" else "lines.npz")
            run("train.py", what, made / "pack.zip", made, "--drawn", kept, "--steps", steps, "--batch", batch, "--every", 1)
            losses = [loss for _, _, loss in json.loads((made / f"{what}.json").read_text(encoding="utf-8"))["log"]]
            first, last = float(np.mean(losses[:6])), float(np.mean(losses[-6:]))
            print(f"{what}: loss {first:.2f} at first, {last:.2f} at last")
            if not last < first:
                sys.exit(f"the loss of {what} did not fall")


if __name__ == "__main__":
    main()
