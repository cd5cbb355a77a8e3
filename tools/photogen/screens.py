"""Photographs a screen that shows a photo: its pixels' colours side by side, then a lens, a sensor behind coloured filters, and a JPEG.

* `stripes`: red, green and blue side by side in each pixel, as on most LCD monitors.
* `domains`: the same, each pixel halved by a bar, as on many large LCDs.
* `pentile`: green in each pixel, red and blue in every other, as on most OLED phones.

A lens and a sensor's pixel blur a pattern of known frequencies by known factors: the picture is made of its frequencies as they arrive, so
that no resampling adds a pattern of its own.

  python3 screens.py ../../examples/photos/drum-1.jpg OUT.jpg --kind stripes --pitch 2.5 --size 768x576 --seed 1
"""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

KINDS = ["stripes", "domains", "pentile"]
# Harmonics of a row of bars that are drawn: a lens lets through no more.
HARMONICS = 3


def linear(code):
    """sRGB's levels as light, 0-1."""
    code = code / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


def coded(light):
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def passed(across, down, sigma):
    """The share of a frequency, in waves a pixel of the camera, that a lens's blur and the area of its pixels let through."""
    return float(np.exp(-2 * (np.pi * sigma) ** 2 * (across**2 + down**2)) * np.sinc(across) * np.sinc(down))


def bars(at, start, broad, frequency, sigma):
    """Bars of the breadth `broad` of a period of one, of mean one, where the camera sees them at that frequency."""
    out = np.ones_like(at)
    for k in range(1, HARMONICS + 1):
        share = 2 * float(np.sinc(k * broad)) * passed(k * frequency, 0, sigma)
        out += share * np.cos(2 * np.pi * k * (at - start - broad / 2))
    return out


def every_other(x, y, broad, frequency, sigma, shift):
    """Squares of that breadth on every other place of a chessboard, of mean one."""
    out = np.ones_like(x)
    for a, b in [(1, 1), (1, -1), (2, 0), (0, 2), (3, 1), (3, -1), (1, 3), (1, -3), (2, 2), (2, -2)]:
        share = 2 * float(np.sinc(a * broad / 2) * np.sinc(b * broad / 2)) * passed(frequency * a / 2, frequency * b / 2, sigma)
        out += share * np.cos(np.pi * (a * (x - shift) + b * y))
    return out


def pattern(rng, kind, x, y, frequency, sigma):
    """How bright red, green and blue are at points of a screen, counted in its pixels."""
    if kind == "pentile":
        green = bars(x, 0.3, 0.38, frequency, sigma) * bars(y, 0.3, 0.38, frequency, sigma)
        red, blue = (every_other(x, y, broad, frequency, sigma, shift) for broad, shift in [(0.6, 0), (0.66, 1)])
        return np.stack([red, green, blue], -1)
    halves = 2 if kind == "domains" else 1
    rows = bars(y * halves, 0.1, rng.uniform(0.78, 0.9), frequency * halves, sigma)
    broad = rng.uniform(0.23, 0.3)
    return np.stack([bars(x, n / 3, broad, frequency, sigma) for n in range(3)], -1) * rows[..., None]


def shown(light, x, y):
    """The photo's light at points of it; between pixels by a straight line."""
    x, y = x.clip(0, light.shape[1] - 1.01), y.clip(0, light.shape[0] - 1.01)
    left, top = x.astype(int), y.astype(int)
    right, down = (x - left)[..., None], (y - top)[..., None]
    upper = light[top, left] * (1 - right) + light[top, left + 1] * right
    return upper * (1 - down) + (light[top + 1, left] * (1 - right) + light[top + 1, left + 1] * right) * down


def sensed(rng, light, noise):
    """What a sensor makes of light. One behind a mosaic of filters measures one colour a pixel, and its neighbours tell the others; one that
    puts several pictures together, or several pixels, has all three of each."""
    if rng.random() < 0.5:
        return light + rng.standard_normal(light.shape, np.float32) * noise * np.sqrt(light.clip(0) + 0.02)
    seen = np.zeros_like(light)
    seen[0::2, 0::2, 0] = seen[0::2, 1::2, 1] = seen[1::2, 0::2, 1] = seen[1::2, 1::2, 2] = 1
    raw = (light * seen).sum(-1)
    raw += rng.standard_normal(raw.shape, np.float32) * noise * np.sqrt(raw.clip(0) + 0.02)

    def around(plane):
        padded = np.pad(plane, 1, mode="reflect")
        rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        return rows[:-2] + 2 * rows[1:-1] + rows[2:]

    return np.stack([around(raw * seen[..., n]) / around(seen[..., n]) for n in range(3)], -1)


def photograph(rng, photo, kind, pitch, size, tilt=5.0):
    """A photo of a screen that shows `photo`, edge to edge; `pitch` is the size of a screen's pixel in pixels of the camera, `tilt` how
    many degrees the camera may be turned."""
    width, height = size
    sigma, turn = rng.uniform(0.35, 0.8), np.deg2rad(rng.uniform(-tilt, tilt))
    lean, cos, sin = rng.uniform(-0.06, 0.06, 2).tolist(), float(np.cos(turn)), float(np.sin(turn))
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    across, down = across - width / 2, down - height / 2
    depth = 1 + (lean[0] * across + lean[1] * down) / width
    x = (cos * across - sin * down) / depth
    y = (sin * across + cos * down) / depth
    # A margin keeps the turned frame within the screen.
    scale = 0.88 * min(photo.width / width, photo.height / height)
    light = shown(linear(np.asarray(photo, np.float32)), x * scale + photo.width / 2, y * scale + photo.height / 2)
    # Black is not black on a screen, and a room is lit.
    light = light * rng.uniform(0.8, 1.0) + rng.uniform(0.001, 0.01)
    shift = rng.uniform(0, 1, 2).tolist()
    light *= pattern(rng, kind, x / pitch + shift[0], y / pitch + shift[1], 1 / pitch, sigma)
    picture = Image.fromarray(coded(sensed(rng, light * rng.uniform(0.7, 1.1), rng.uniform(0.004, 0.02))).round().astype(np.uint8))
    return picture.filter(ImageFilter.UnsharpMask(1.2, 60, 2)) if rng.random() < 0.5 else picture


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--pitch", type=float, required=True, help="camera pixels per pixel of the screen")
    parser.add_argument("--size", default="768x576")
    parser.add_argument("--quality", type=int, default=85)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    size = tuple(int(side) for side in given.size.split("x"))
    photo = Image.open(given.photo).convert("RGB")
    photograph(np.random.default_rng(given.seed), photo, given.kind, given.pitch, size).save(given.out, "JPEG", quality=given.quality)


if __name__ == "__main__":
    main()
