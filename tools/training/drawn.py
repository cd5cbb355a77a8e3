"""Drawn lines and drawn photos to train with, beside the real ones: the classes that are rare there.

Only typefaces for tuning are drawn, see ../photogen/fonts.py: none of those that a reported figure is measured with.
"""
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "photogen"), str(HERE.parent / "digitreader")]
import camera  # noqa: E402
import odometers  # noqa: E402
import photogen  # noqa: E402
import strips  # noqa: E402
from dashboards import OTHERS, STYLES, glass  # noqa: E402

from lines import DIGITAL, DRUM  # noqa: E402
from nets import DIGIT, GAP, POINT, ROWS, TENTH  # noqa: E402

COLUMNS, MOST = 384, 10
TALL = strips.TALL
DOTS = {
    "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010204081f", "3": "1f02040201110e", "4": "02060a121f0202", "5": "1f101e0101110e",
    "6": "0608101e11110e", "7": "1f010204080808", "8": "0e11110e11110e", "9": "0e11110f01020c", ".": "00000000000c0c", " ": "00000000000000",
    "k": "10101214181412", "m": "00001a15151111", "O": "0e11111111110e", "D": "1e11111111111e",
}
# Colours of a tenths wheel: paper and ink.
TENTHS_DARK = [((222, 220, 210), (20, 20, 20)), ((235, 235, 230), (170, 20, 20)), ((170, 30, 28), (240, 236, 228)), ((214, 120, 30), (20, 20, 20)),
               ((205, 190, 60), (20, 20, 20)), ((60, 90, 160), (235, 235, 235)), ((24, 24, 26), (220, 60, 40))]
TENTHS_LIGHT = [((26, 26, 28), (228, 226, 220)), ((176, 32, 30), (244, 240, 232)), ((226, 224, 214), (190, 30, 26)), ((60, 90, 160), (240, 240, 240))]


def drum(rng):
    """Wheels, half turned where the ones before them carry; the picture, its ground, classes and share of a digit's height."""
    count = int(rng.choice([5, 6, 7], p=[0.3, 0.6, 0.1]))
    digits = [int(d) for d in rng.integers(0, 10, count)]
    for place in range(int(rng.choice([0, 1, 2], p=[0.4, 0.35, 0.25]))):
        digits[place] = 0
    tenths = rng.random() < 0.55
    height, typeface = TALL * 2, str(rng.choice(strips.TYPEFACES))
    width = int(height * rng.uniform(0.5, 0.85))
    gap = max(1, int(width * rng.choice([0.02, rng.uniform(0.04, 0.14), rng.uniform(0.15, 0.5)])))
    dark = rng.random() < 0.85
    paper, ink = (odometers.shade((24, 24, 26), rng.uniform(0.4, 2)), odometers.shade((232, 230, 220), rng.uniform(0.6, 1.05))) if dark else \
                 ((226, 224, 214), (26, 26, 28))
    frame = (8, 8, 9) if rng.random() < 0.7 else odometers.shade(paper, 0.6)
    styles = TENTHS_DARK if dark else TENTHS_LIGHT
    roll = [0.0] * count
    roll[-1] = float(rng.uniform(-0.4, 0.45)) if rng.random() < 0.6 else float(rng.normal(0, 0.06))
    for i in range(count - 2, -1, -1):
        carried = digits[i + 1] == 9 and roll[i + 1] > 0.1
        roll[i] = roll[i + 1] if carried else float(rng.normal(0, 0.04))
    other = styles[rng.integers(len(styles))]
    picture = Image.new("RGB", (count * (width + gap) + gap, height + 2 * gap), frame)
    for i, digit in enumerate(digits):
        colours = other if tenths and i == count - 1 else (paper, ink)
        picture.paste(odometers.wheel(rng, (width, height), digit, roll[i], *colours, typeface), (gap + i * (width + gap), gap))
    classes = [DIGIT + d for d in digits]
    if tenths:
        classes[-1] += TENTH - DIGIT
    ground = tuple(int(v) for v in rng.integers(6, 70, 3)) if rng.random() < 0.8 else frame
    return picture, ground, classes, 0.53 * height / picture.height


def numbers(rng):
    """A number as a display shows it, and its classes."""
    count = int(rng.choice([3, 4, 5, 6, 7], p=[0.06, 0.1, 0.3, 0.46, 0.08]))
    text = "".join(str(d) for d in rng.integers(0, 10, count))
    if rng.random() < 0.12:
        text = text[: rng.integers(1, count)].rjust(count, str(rng.choice(["0", "8", "1"])))
    if rng.random() < 0.15:
        text = text[:-1][-4:] + "." + text[-1]
    return text


def classed(text):
    """The classes of a text of digits, points and gaps."""
    out = []
    for character in text:
        out.append(DIGIT + int(character) if character.isdigit() else POINT if character == "." else GAP)
    return out


def dotted(text, colour, pitch, share):
    """A text as a dot matrix shows it."""
    picture = Image.new("RGBA", (len(text) * 6 * pitch, 7 * pitch), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    for place, character in enumerate(text):
        rows = bytes.fromhex(DOTS[character])
        for y, row in enumerate(rows):
            for x in range(5):
                if row >> (4 - x) & 1:
                    left, top = (place * 6 + x) * pitch, y * pitch
                    draw.rectangle([left, top, left + pitch * share, top + pitch * share], fill=colour)
    return picture.crop((0, 0, picture.width - pitch, picture.height))


def colours(rng):
    """A display's ground and ink."""
    _, lit, ghost, kind = glass(rng, (24, 24))
    back = strips.ground(kind)
    if rng.random() < 0.5:
        hue = rng.integers(0, 255, 3)
        bright, dim = rng.uniform(0.75, 1.0), rng.uniform(0.0, 0.35)
        strong = tuple(int(v) for v in hue * bright * 255 / max(1, hue.max()))
        weak = tuple(int(v) for v in hue * dim)
        back, lit = (weak, strong) if rng.random() < 0.75 else (strong, weak)
        share = rng.uniform(0.03, 0.15)
        ghost = tuple(int(b + (f - b) * share) for b, f in zip(back, lit)) if rng.random() < 0.5 else None
    return back, lit[:3], ghost and ghost[:3] + (255,)


def segments(rng):
    text = numbers(rng)
    back, lit, ghost = colours(rng)
    picture = odometers.seven_segment(rng, text, TALL, lit + (255,), ghost)
    if sum(lit) > sum(back) and rng.random() < 0.7:
        picture = odometers.glow(picture, rng.uniform(0.3, 0.95))
    return picture, back, classed(text), TALL / picture.height


def matrix(rng):
    text = numbers(rng)
    back, lit, _ = colours(rng)
    picture = dotted(text, lit + (255,), int(rng.integers(6, 9)), rng.uniform(0.6, 1.0))
    if sum(lit) > sum(back) and rng.random() < 0.6:
        picture = odometers.glow(picture, rng.uniform(0.3, 0.95))
    return picture, back, classed(text), 1.0


def screen(rng):
    text = shown = numbers(rng)
    back, ink = ((10, 13, 20), (232, 236, 242)) if rng.random() < 0.7 else ((206, 212, 218), (24, 28, 34))
    if len(text) > 4 and "." not in text and rng.random() < 0.3:
        shown = text[:-3] + str(rng.choice([",", " ", "'"])) + text[-3:]
    picture = odometers.screen_text(rng, shown, TALL * 0.72, ink, str(rng.choice(strips.TYPEFACES)))
    return picture, back, classed(text), 0.86


DRAW, SHARES = [drum, segments, matrix, screen], [0.4, 0.22, 0.2, 0.18]


def beside(rng, canvas, box, back):
    """What stands around a number: words, units, numbers of a scale, lines above and below."""
    left, top, right, bottom = box
    tall, bright = bottom - top, sum(back) < 380
    for side in ("left", "right", "above", "below"):
        if rng.random() < 0.35:
            other = strips.word(rng, TALL, bright)
            if side in ("left", "right"):
                away = int(TALL * rng.uniform(0.3, 0.9))
                x = left - away - other.width if side == "left" else right + away
                y = top + int(rng.uniform(0, 0.8) * max(1, tall - other.height))
            else:
                x = int(rng.uniform(left, right))
                y = top - other.height - int(TALL * rng.uniform(0.15, 0.5)) if side == "above" else bottom + int(TALL * rng.uniform(0.15, 0.5))
            canvas.paste(other, (x, y), other)


def line(rng):
    """One drawn line: its pixels, how many columns it fills, and its classes."""
    picture, back, classes, share = DRAW[rng.choice(len(DRAW), p=SHARES)](rng)
    room = 3 * TALL
    canvas = strips.uneven(rng, (picture.width + 2 * room, picture.height + 2 * room), back)
    box = (room, room, room + picture.width, room + picture.height)
    canvas.paste(picture, box[:2], picture if picture.mode == "RGBA" else None)
    beside(rng, canvas, box, back)
    high = picture.height * share
    middle = (room + picture.width / 2 + rng.normal(0, 0.1) * high, room + picture.height / 2 + rng.normal(0, 0.08) * high)
    long, tall = picture.width + 2 * high * rng.uniform(0.15, 0.9), 1.5 * high * rng.uniform(0.85, 1.25)
    if rng.random() < 0.06:
        classes, middle = [], (middle[0], middle[1] + (tall + picture.height) * rng.choice([-0.5, 0.5]))
    wide = int(min(COLUMNS, max(64, round(ROWS * long / tall / 8) * 8)))
    angle, lean = rng.normal(0, 0.03), rng.normal(0, 0.06) * tall
    along, across = np.array([np.cos(angle), np.sin(angle)]) * long / 2, np.array([-np.sin(angle), np.cos(angle)]) * tall / 2
    corners = [np.add(middle, s * along + t * across + np.array([lean * t, 0])) for s, t in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
    cut = canvas.transform((wide * 2, ROWS * 2), Image.Transform.QUAD, np.concatenate(corners).tolist(), Image.Resampling.BILINEAR)
    pixels = np.full((ROWS, COLUMNS, 3), 127, np.uint8)
    pixels[:, :wide] = np.asarray(cut.resize((wide, ROWS), Image.Resampling.BOX))
    return pixels, wide, classes


def some_lines(seed, count, index):
    strips.use_typefaces()
    rng = np.random.default_rng([seed, index])
    made = [line(rng) for _ in range(count)]
    labels = np.zeros((count, MOST), np.int64)
    for row, (*_, classes) in zip(labels, made):
        row[: len(classes)] = classes
    return np.stack([m[0] for m in made]), np.array([m[1] for m in made]), labels


def lines(seed, count, workers=None, each=250):
    """Drawn lines by a seed: pixels (count, 48, 384, 3), columns in use, and classes with zeros behind the last."""
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(partial(some_lines, seed, each), range(max(1, count // each))))
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(3))


def photo(seed, longest, index):
    """A drawn dashboard as a camera sees it, at most `longest` pixels long: pixels, role, and the total's line as (x, y, length, height,
    cosine, sine) or None."""
    strips.use_typefaces()
    rng = np.random.default_rng([seed, index])
    style = list(STYLES)[index % 3] if rng.random() < 0.85 else list(OTHERS)[index % 2]
    value = int(rng.integers(1000, 10 ** rng.choice([5, 6, 6]))) if style in STYLES and rng.random() < 0.85 else None
    what = photogen.scene(rng, style, value, [None, "km", "km", "miles"][rng.integers(4)], None if value else str(rng.choice(["trip", "nothing"])))
    dashboard, box = (STYLES | OTHERS)[style](rng, what)
    size = (1280, 960)
    picture, _, seen = camera.shoot(rng, dashboard, size, str(rng.choice(["clean", "mid", "hard"], p=[0.2, 0.5, 0.3])), None, box)
    role = DRUM if style == "drum" else DIGITAL
    found = None
    if value is not None:
        first, last = what.get("digits", (0.0, 1.0))
        left, top, right, bottom = box
        wide, middle = right - left, (top + bottom) / 2
        tall = (bottom - top) * {"drum": 0.5, "seven_segment": 0.9, "screen": 0.72}[style]
        points = camera.seen_at(seen, [(left + first * wide, middle), (left + last * wide, middle), ((left + right) / 2, middle - tall / 2),
                                       ((left + right) / 2, middle + tall / 2)], size)
        points = points * longest / max(size)
        a, b, above, below = points
        long = float(np.hypot(*(b - a)))
        found = [*((a + b) / 2), long, float(np.hypot(*(below - above))), *((b - a) / long)]
    picture.thumbnail((longest, longest), Image.Resampling.BOX)
    return np.asarray(picture), role, found


def photos(seed, count, longest, workers=None):
    """Drawn photos by a seed."""
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(partial(photo, seed, longest), range(count), chunksize=4))


if __name__ == "__main__":
    pixels, widths, labels = lines(1, 96, 1, 96)
    sheet = np.concatenate([np.concatenate(list(pixels[i * 4: i * 4 + 4]), 1) for i in range(24)])
    Image.fromarray(sheet).save(sys.argv[1])
    print([" ".join(str(c) for c in row if c) for row in labels[:8]])
