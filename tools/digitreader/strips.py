"""Strips of digits as the reader cuts them out of a photo, and what they say: what the digit reader is trained on.

Only typefaces for tuning are drawn (see ../photogen/fonts.py), and more weights of the same families: none of those that a
reported figure is measured with.
"""
import io
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).parent.parent / "photogen"))
import fonts  # noqa: E402
import odometers  # noqa: E402
from dashboards import glass  # noqa: E402

ROWS, COLUMNS = 32, 192
# The most digits that stand on an odometer: seven and a wheel of tenths.
MOST_DIGITS = 8
# Height of a digit while it is drawn; pixels. A strip shows it 16 to 30 pixels high.
TALL = 44
FAMILIES = [
    "opentype/cantarell/Cantarell-{Regular,Bold,ExtraBold}.otf",
    "opentype/inter/Inter-{Regular,Medium,SemiBold,Bold}.otf",
    "opentype/inter/InterDisplay-{Medium,Bold}.otf",
    "opentype/urw-base35/NimbusSans-{Regular,Bold}.otf",
    "opentype/urw-base35/NimbusSansNarrow-{Regular,Bold}.otf",
    "opentype/urw-base35/NimbusMonoPS-Bold.otf",
    "opentype/urw-base35/URWGothic-{Book,Demi}.otf",
    "truetype/firacode/FiraCode-{Regular,Medium,Bold}.ttf",
    "truetype/hack/Hack-{Regular,Bold}.ttf",
    "truetype/noto/NotoSans-{Regular,Bold}.ttf",
    "truetype/noto/NotoSansDisplay-{Regular,Bold}.ttf",
]
WORDS = ["km", "mi", "miles", "ODO", "Total", "TRIP", "km/h", "A", "B", "P R N D", "RANGE", "°C", "MPH", "Service", "E", "F", "x1000"]


def expand(pattern):
    """The names that one {a,b} stands for."""
    if "{" not in pattern:
        return [pattern]
    head, rest = pattern.split("{")
    names, tail = rest.split("}")
    return [head + name + tail for name in names.split(",")]


TYPEFACES = [name for pattern in FAMILIES for name in expand(pattern)]


def use_typefaces():
    """Lets the photo generator draw with these typefaces, each under its file's name."""
    fonts.tune()
    fonts.in_use.update({name: name for name in TYPEFACES})


def drum(rng, text):
    """Wheels; the picture, and the colour of what surrounds them."""
    digits, tenth = (text[:-1], text[-1]) if len(text) > 5 and rng.random() < 0.4 else (text, None)
    part = odometers.drum(rng, digits, tenth, TALL, TYPEFACES)
    return part, tuple(int(v) for v in rng.integers(8, 60, 3))


def seven_segment(rng, text):
    _, lit, ghost, kind = glass(rng, (24, 24))
    part = odometers.seven_segment(rng, text, TALL, lit, ghost)
    if "led" in kind or kind == "vfd":
        part = odometers.glow(part, rng.uniform(0.4, 0.9))
    return part, ground(kind)


def ground(kind):
    """The display's background, by dashboards.glass."""
    return {"grey": (150, 158, 146), "green": (118, 168, 92), "amber": (222, 132, 38), "blue": (26, 52, 128),
            "led_red": (14, 6, 6), "led_green": (5, 12, 8), "vfd": (6, 14, 16)}[kind]


def screen(rng, text):
    night = rng.random() < 0.75
    back, ink = ((10, 13, 20), (232, 236, 242)) if night else ((206, 212, 218), (24, 28, 34))
    if len(text) > 3 and rng.random() < 0.35:
        text = text[:-3] + str(rng.choice([",", " ", ".", "'"])) + text[-3:]
    return odometers.screen_text(rng, text, TALL * 0.72, ink, str(rng.choice(TYPEFACES))), back


STYLES = [drum, seven_segment, screen]


def word(rng, tall, bright):
    """What stands beside digits: words, units, numbers of a scale's other end."""
    text = str(rng.choice(WORDS))
    colour = tuple(int(v) for v in (rng.integers(190, 255, 3) if bright else rng.integers(0, 60, 3)))
    return odometers.screen_text(rng, text, tall * rng.uniform(0.4, 0.9), colour, str(rng.choice(TYPEFACES)))


def uneven(rng, size, back):
    """A ground of one colour with slow changes of light."""
    coarse = rng.normal(0, 7, (4, 9)).astype(np.float32)
    light = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    return Image.fromarray((np.array(back, np.float32) + light[..., None]).clip(0, 255).astype(np.uint8))


def strip(rng):
    """One strip, grey, and its digits."""
    style = STYLES[rng.integers(len(STYLES))]
    blank = rng.random() < 0.08
    count = int(rng.choice([4, 5, 6, 7, 8], p=[0.06, 0.24, 0.44, 0.2, 0.06]))
    text = "".join(str(digit) for digit in rng.integers(0, 10, count))
    if rng.random() < 0.15:
        text = text[: rng.integers(1, count)].rjust(count, str(rng.choice(["0", "8", "1"])))
    part, back = style(rng, text)
    canvas = uneven(rng, (part.width + 5 * TALL, 2 * TALL), back)
    left, top = 5 * TALL // 2, (canvas.height - part.height) // 2
    bright = sum(back) < 380
    if blank:
        other = word(rng, TALL, bright)
        canvas.paste(other, (left + (part.width - other.width) // 2, top), other)
    else:
        canvas.paste(part, (left, top), part if part.mode == "RGBA" else None)
    for side in (-1, 1):
        if rng.random() < 0.45:
            other = word(rng, TALL, bright)
            away = int(TALL * rng.uniform(0.2, 0.9))
            x = left - away - other.width if side < 0 else left + part.width + away
            canvas.paste(other, (x, top + int(rng.uniform(-0.2, 0.8) * (part.height - other.height))), other)
    pixels = cut(rng, light(rng, canvas.convert("L")), (left, top, left + part.width, top + part.height), part.width / count)
    return pixels, "" if blank else text


def light(rng, canvas):
    """Blur, light, noise and compression, from clean to hard."""
    hard = rng.random()
    canvas = canvas.filter(ImageFilter.GaussianBlur(TALL * rng.uniform(0.004, 0.02 + 0.06 * hard)))
    values = np.asarray(canvas, np.float32) * rng.uniform(1 - 0.65 * hard, 1.1)
    if rng.random() < 0.25:
        across = np.linspace(-1, 1, canvas.width) - rng.uniform(-0.6, 0.6)
        streak = np.exp(-(across / rng.uniform(0.05, 0.3)) ** 2) * rng.uniform(0.03, 0.35)
        values += (240 - values) * streak
    values += rng.standard_normal(values.shape, np.float32) * rng.uniform(1, 4 + 8 * hard)
    canvas = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.7:
        shrink = rng.uniform(0.3, 0.9)
        small = canvas.resize((int(canvas.width * shrink), int(canvas.height * shrink)), Image.Resampling.BOX)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=int(rng.integers(35, 92)))
        canvas = Image.open(out).resize(canvas.size, Image.Resampling.BILINEAR)
    return canvas


def cut(rng, canvas, box, pitch):
    """The digits with about a digit's room at both ends, leaning a little, at the network's size."""
    left, top, right, bottom = box
    tall = bottom - top
    left, right = left - pitch * rng.uniform(0.15, 1.1), right + pitch * rng.uniform(0.15, 1.1)
    top, bottom = top - tall * rng.uniform(-0.06, 0.4), bottom + tall * rng.uniform(-0.06, 0.4)
    lean, rise = rng.normal(0, 0.05) * tall, rng.normal(0, 0.02) * (right - left)
    corners = (left + lean, top - rise, left - lean, bottom - rise, right - lean, bottom + rise, right + lean, top + rise)
    grey = canvas.transform((COLUMNS * 2, ROWS * 2), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return np.asarray(grey.resize((COLUMNS, ROWS), Image.Resampling.BOX))


def chunk(seed, count, index):
    use_typefaces()
    rng = np.random.default_rng([seed, index])
    made = [strip(rng) for _ in range(count)]
    labels = np.full((count, MOST_DIGITS), -1, np.int8)
    for row, (_, text) in zip(labels, made):
        row[: len(text)] = [int(digit) for digit in text]
    return np.stack([pixels for pixels, _ in made]), labels


def strips(seed, count, each=500):
    """`count` strips by the seed: pixels (count, 32, 192), and digits (count, 8) with -1 behind the last."""
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(partial(chunk, seed, each), range(count // each)))
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


if __name__ == "__main__":
    pixels, labels = strips(1, 100, 50)
    sheet = Image.fromarray(np.concatenate([np.concatenate(list(pixels[i * 5: i * 5 + 5]), 1) for i in range(12)]))
    sheet.save(sys.argv[1])
    print(["".join(str(d) for d in row if d >= 0) for row in labels[:60]])
