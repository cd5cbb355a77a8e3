"""Makes photos of dashboards with known odometer readings.

  python3 photogen.py set OUT --seed 7 --count 60     a mixed set with truth.jsonl
  python3 photogen.py examples OUT                    the photos and expected.json of examples/photos, by examples.json

The same seed and package versions give the same files.
"""
import argparse
import json
from pathlib import Path

import numpy as np

import camera
from dashboards import STYLES

SIZES = [(1280, 960)] * 6 + [(1600, 1200), (960, 720), (2016, 1512)]


def scene(rng, style, value, unit):
    """What stands on the dashboard. `value` is None for a dashboard without an odometer."""
    tenth = None
    text = None
    if value is not None:
        text = str(value)
        if style == "drum":
            text = text.zfill(6 if len(text) > 5 or rng.random() < 0.5 else 5)
            tenth = int(rng.integers(0, 10)) if rng.random() < 0.35 else None
    return dict(style=style, value=value, unit=unit, text=text, tenth=tenth, show_unit=bool(rng.random() < 0.85))


def photo(seed, style, value, unit, level="mid", spoil=None, size=(1280, 960), kind="jpeg", orientation=1, shot=0):
    """One photo: its bytes and its truth. `seed` is the car, `shot` the moment: values with equally many digits stand on
    the same dashboard."""
    rng = np.random.default_rng(seed)
    what = scene(rng, style, value, unit)
    dashboard, _ = STYLES[style](rng, what)
    picture, quality = camera.shoot(np.random.default_rng([seed, shot]), dashboard, size, level, spoil)
    data = camera.encode(picture, kind, quality, orientation)
    return data, dict(seed=seed, shot=shot, level=level, spoil=spoil, size=size, kind=kind, orientation=orientation, quality=quality, **what)


def mixed(seed, index):
    """The settings of the index-th photo of a set."""
    rng = np.random.default_rng([seed, index])
    style = list(STYLES)[index % 3]
    digits = int(rng.choice([5, 6, 6, 6])) if rng.random() < 0.95 else 4
    value = int(rng.integers(10 ** (digits - 1), 10 ** digits))
    unit = [None, "km", "km", "miles"][rng.integers(4)]
    level = str(rng.choice(["clean", "mid", "hard"], p=[0.2, 0.55, 0.25]))
    size = SIZES[rng.integers(len(SIZES))]
    kind = str(rng.choice(["jpeg", "png", "webp"], p=[0.92, 0.04, 0.04]))
    orientation = int(rng.choice([1, 3, 6, 8], p=[0.88, 0.04, 0.04, 0.04])) if kind == "jpeg" else 1
    return dict(seed=int(rng.integers(2 ** 31)), style=style, value=value, unit=unit, level=level, size=size, kind=kind,
                orientation=orientation)


def make_set(out, seed, count):
    with open(out / "truth.jsonl", "w", encoding="utf-8") as truth:
        for index in range(count):
            settings = mixed(seed, index)
            data, facts = photo(**settings)
            name = f"{index:03d}-{settings['style']}.{'jpg' if settings['kind'] == 'jpeg' else settings['kind']}"
            (out / name).write_bytes(data)
            truth.write(json.dumps(dict(file=name, **facts)) + "\n")


def make_examples(out):
    recipe = json.loads((Path(__file__).parent / "examples.json").read_text(encoding="utf-8"))
    for name, settings in recipe["photos"].items():
        data, _ = photo(**settings)
        (out / name).write_bytes(data)
    for name, text in recipe["texts"].items():
        (out / name).write_text(text, encoding="utf-8")
    posts = dict(photos=recipe["posts"])
    (out / "expected.json").write_text(json.dumps(posts, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["set", "examples"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.what == "set":
        make_set(given.out, given.seed, given.count)
    else:
        make_examples(given.out)


if __name__ == "__main__":
    main()
