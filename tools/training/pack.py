"""Packs a folder of labelled photos (labels.jsonl and images/) into one file for training.

  python3 pack.py FOLDER PACK.zip

Each photo is kept twice: whole, at most 640 pixels long, and near, the surroundings of its display as they are in the photo, at most
512 pixels long. `index.json` has a photo's lines in both, and its car: photos of one car never stand on both sides of a fold.
"""
import argparse
import io
import json
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

import lines

ImageFile.LOAD_TRUNCATED_IMAGES = True
WHOLE, NEAR = 640, 512
WHOLE_QUALITY, NEAR_QUALITY = 55, 75
FOLDS = 3
# Two photos of one kind may show one car if both values are at least KNOWN kilometres and the same, and their looks are as near as
# HARDLY (a correlation); if the values are less than DRIVEN apart and the looks as near as ALIKE; or if the looks are as near as SAME.
# Drums are alike from car to car of one make: the bar is higher for them.
KNOWN, HARDLY, SAME = 300, 0.4, 0.98
DRIVEN, ALIKE = dict(analog=100, digital=300), dict(analog=0.8, digital=0.65)


def shrunken(picture, longest, quality):
    """A WebP file of the picture, and its scale."""
    scale = min(1.0, longest / max(picture.size))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    out = io.BytesIO()
    picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0).save(out, "WEBP", quality=quality)
    return out.getvalue(), scale


def surroundings(display, size):
    """The display's box with room around it."""
    x0, y0, x1, y1 = display
    wide, tall = max(x1 - x0, 16), max(y1 - y0, 16)
    room_x, room_y = 0.3 * wide + 0.5 * tall, 0.6 * tall + 0.1 * wide
    return max(0, int(x0 - room_x)), max(0, int(y0 - room_y)), min(size[0], int(x1 + room_x)), min(size[1], int(y1 + room_y))


def look(picture):
    """What tells one dashboard from another: a small copy less its mean colour, over its deviation."""
    colours = np.asarray(picture.resize((24, 16), Image.Resampling.BOX), np.float32)
    colours = (colours - colours.mean((0, 1))).ravel()
    return colours / max(1e-3, float(np.linalg.norm(colours)))


def packed(folder, photo):
    """A photo's two files, its line of the index, and its looks."""
    picture = Image.open(Path(folder) / "images" / photo.file).convert("RGB")
    whole, scale = shrunken(picture, WHOLE, WHOLE_QUALITY)
    box = surroundings(photo.display, picture.size)
    cropped = picture.crop(box)
    near, near_scale = shrunken(cropped, NEAR, NEAR_QUALITY)
    row = dict(
        file=photo.file, kind=photo.kind, label=photo.label, total=photo.total, trip_only=photo.trip_only, display=photo.display,
        whole_scale=scale, near_box=box, near_scale=near_scale, lines=[vars(line) for line in photo.lines])
    return whole, near, row, (look(picture), look(cropped))


def value(row):
    """The kilometres that a photo's label gives, or -1. A drum's last wheel shows tenths."""
    digits = row["label"]
    digits = digits[:-1] if row["kind"] == "analog" else digits
    return int(digits) if digits.isdigit() else -1


def cars(rows, looks):
    """A number per photo, the same for photos that may show the same car: the same value, values that one car may show within
    days on dashboards that look alike, or the same look. Cars of one make often come together: that errs on the safe side."""
    whole, near = (np.stack([pair[i] for pair in looks]) for i in range(2))
    whole, near = whole @ whole.T, near @ near.T
    values = np.array([value(row) for row in rows])
    known = np.minimum(values[:, None], values[None]) >= KNOWN
    apart = np.abs(values[:, None] - values[None])
    kinds = np.array([row["kind"] == "analog" for row in rows])
    driven, bar = (np.array([by_kind[row["kind"]] for row in rows])[:, None] for by_kind in (DRIVEN, ALIKE))
    alike = known & (apart == 0) & (near > HARDLY) | known & (apart < driven) & ((near > bar) | (whole > bar)) | (near > SAME) | (whole > SAME)
    alike &= kinds[:, None] == kinds[None]
    car = np.full(len(rows), -1)
    for first in range(len(rows)):
        found = [first] if car[first] < 0 else []
        while found:
            i = found.pop()
            car[i] = first
            found += [int(j) for j in np.nonzero(alike[i] & (car < 0))[0] if j not in found]
    return [int(c) for c in car]


def folds(rows, car):
    """A fold for each photo: of each kind the cars with most photos first, each to the fold with fewest."""
    fold = {}
    for kind in sorted({row["kind"] for row in rows}):
        sizes = [0] * FOLDS
        for name, count in Counter(name for row, name in zip(rows, car) if row["kind"] == kind).most_common():
            fold[name] = sizes.index(min(sizes))
            sizes[fold[name]] += count
    return [fold[name] for name in car]


def pack(folder, out):
    """Writes the pack of a folder."""
    with ProcessPoolExecutor() as pool:
        made = list(pool.map(partial(packed, folder), lines.photos(folder), chunksize=8))
    rows = [row for _, _, row, _ in made]
    car = cars(rows, [looks for *_, looks in made])
    for row, name, fold in zip(rows, car, folds(rows, car)):
        row.update(car=name, fold=fold)
    with zipfile.ZipFile(out, "w") as archive:
        for index, (whole, near, *_) in enumerate(made):
            archive.writestr(f"whole/{index}.webp", whole)
            archive.writestr(f"near/{index}.webp", near)
        archive.writestr("index.json", json.dumps(rows), zipfile.ZIP_DEFLATED)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    made = pack(given.folder, given.out)
    print(len(made), "photos of", len({row["car"] for row in made}), "cars")
