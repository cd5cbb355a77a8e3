"""Makes photos of dashboards with known odometer readings.

  python3 photogen.py set OUT --seed 7 --count 60               readable photos with truth.jsonl
  python3 photogen.py set OUT --kind unreadable --tuning        photos that nobody can read, in the typefaces for tuning
  python3 photogen.py set OUT --kind not_accepted               other things than an odometer
  python3 photogen.py set OUT --cabin                 whole cabins: small displays, lamps, a steering wheel, a hand
  python3 photogen.py examples OUT                    the photos and expected.json of examples/photos, by examples.json

The same seed and package versions give the same files.
"""
import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import cabin
import camera
import fonts
from dashboards import OTHERS, STYLES

SIZES = [(1280, 960)] * 5 + [(1600, 1200), (960, 720), (2016, 1512), (4032, 3024)]
# Classes of photos that hide a reading or have none, and the classes of other things.
UNREADABLE = ["blur", "motion", "dark", "glare", "over_exposed", "no_reading"]
NOT_ACCEPTED = ["no_odometer", "speedometer", "trip_meter"]
# The prior is what the vehicle's last verified reading may be: this much less than the truth.
DRIVEN = (30, 1501)


def scene(rng, style, value, unit, shows=None):
    """What stands on the dashboard. `value` is None for a dashboard without an odometer; `shows` is what such a one has
    all the same: "trip", "nothing", or None for whatever the style has beside an odometer."""
    tenth = None
    text = None
    if value is not None:
        text = str(value)
        if style == "drum":
            text = text.zfill(6 if len(text) > 5 or rng.random() < 0.5 else 5)
            tenth = int(rng.integers(0, 10)) if rng.random() < 0.4 else None
    return dict(style=style, value=value, unit=unit, text=text, tenth=tenth, shows=shows,
                show_unit=bool(rng.random() < 0.85))


def photo(seed, style, value, unit, level="mid", spoil=None, size=(1280, 960), kind="jpeg", orientation=1, shot=0, shows=None, in_cabin=False):
    """One photo: its bytes and its truth. `seed` is the car, `shot` the moment: values with equally many digits stand on
    the same dashboard. `in_cabin` draws the cabin around it."""
    rng = np.random.default_rng(seed)
    what = scene(rng, style, value, unit, shows)
    dashboard, box = (STYLES | OTHERS)[style](rng, what)
    if in_cabin:
        dashboard, box = cabin.around(rng, dashboard, box)
        what["cabin"] = True
    picture, quality, _ = camera.shoot(np.random.default_rng([seed, shot]), dashboard, size, level, spoil, box)
    what.pop("digits", None)
    data = camera.encode(picture, kind, quality, orientation)
    return data, dict(seed=seed, shot=shot, level=level, spoil=spoil, size=size, kind=kind, orientation=orientation, quality=quality, **what)


def mixed(kind_of_set, seed, index):
    """The settings of the index-th photo of a set, its class, and the vehicle's last reading."""
    rng = np.random.default_rng([seed, index])
    style = list(STYLES)[index % 3]
    digits = int(rng.choice([5, 6, 6, 6])) if rng.random() < 0.95 else 4
    value = int(rng.integers(10 ** (digits - 1), 10 ** digits))
    unit = [None, "km", "km", "miles"][rng.integers(4)]
    level = str(rng.choice(["clean", "mid", "hard"], p=[0.2, 0.55, 0.25]))
    size = SIZES[rng.integers(len(SIZES))]
    kind = str(rng.choice(["jpeg", "png", "webp"], p=[0.92, 0.04, 0.04]))
    orientation = int(rng.choice([1, 3, 6, 8], p=[0.88, 0.04, 0.04, 0.04])) if kind == "jpeg" else 1
    settings = dict(seed=int(rng.integers(2 ** 31)), style=style, value=value, unit=unit, level=level, size=size, kind=kind,
                    orientation=orientation)
    prior = max(0, value - int(rng.integers(*DRIVEN)))
    if kind_of_set == "readable":
        return settings, "readable", prior
    if kind_of_set == "unreadable":
        what = UNREADABLE[index // 3 % len(UNREADABLE)]
        hidden = dict(value=None) if what == "no_reading" else dict(spoil=what)
        return settings | hidden, what, prior
    what = NOT_ACCEPTED[index // 3 % len(NOT_ACCEPTED)]
    style = {"no_odometer": "elsewhere", "speedometer": "speedometer", "trip_meter": style}[what]
    return settings | dict(style=style, value=None, shows="trip" if what == "trip_meter" else "nothing"), what, prior


def make_photo(out, kind_of_set, seed, index, tuning=False, in_cabin=False):
    """Writes the index-th photo of a set; its line of the truth file."""
    if tuning:
        fonts.tune()
    settings, what, prior = mixed(kind_of_set, seed, index)
    data, facts = photo(**settings, in_cabin=in_cabin)
    ending = "jpg" if settings["kind"] == "jpeg" else settings["kind"]
    name = f"{index:04d}-{what}-{settings['style']}.{ending}"
    (out / name).write_bytes(data)
    return json.dumps({"file": name, "class": what, "prior": prior, **facts})


def make_set(out, kind_of_set, seed, count, how):
    with open(out / "truth.jsonl", "w", encoding="utf-8") as truth, ProcessPoolExecutor() as pool:
        for line in pool.map(partial(make_photo, out, kind_of_set, seed, **how), range(count)):
            truth.write(line + "\n")


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
    parser.add_argument("--kind", choices=["readable", "unreadable", "not_accepted"], default="readable")
    parser.add_argument("--tuning", action="store_true", help="draw with the typefaces for tuning")
    parser.add_argument("--cabin", action="store_true", help="draw the cabin around the dashboard")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.what == "set":
        make_set(given.out, given.kind, given.seed, given.count, dict(tuning=given.tuning, in_cabin=given.cabin))
    else:
        make_examples(given.out)


if __name__ == "__main__":
    main()
