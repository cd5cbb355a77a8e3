"""Draws the three kinds of odometer: drums with wheels, seven segments, and text on a screen."""
import math

from PIL import Image, ImageDraw, ImageFilter

from fonts import font

# Which of the segments a-g is lit for each digit: top, upper right, lower right, bottom, lower left, upper left, middle.
SEGMENTS = {
    "0": "abcdef", "1": "bc", "2": "abdeg", "3": "abcdg", "4": "bcfg", "5": "acdfg",
    "6": "acdefg", "7": "abc", "8": "abcdefg", "9": "abcdfg", "-": "g", " ": "",
}


def shade(colour, factor):
    """A colour made lighter (above 1) or darker."""
    return tuple(max(0, min(255, int(channel * factor))) for channel in colour)


def wheel(rng, size, digit, roll, paper, ink, typeface):
    """One wheel: its digit, the next one `roll` (0-1) of the way up, on a cylinder that is darker at top and bottom."""
    width, height = size
    face = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(face)
    letters = font(typeface, int(height * 0.74))
    pitch = height * 0.98
    for step in (-1, 0, 1):
        text = str((digit + step) % 10)
        middle = height / 2 + (step - roll) * pitch
        draw.text((width / 2, middle), text, font=letters, fill=ink, anchor="mm")
    light = Image.linear_gradient("L").resize(size)
    curve = light.point(lambda y: int(255 * (0.55 + 0.45 * math.sin(math.pi * y / 255))))
    return Image.composite(face, Image.new("RGB", size, shade(paper, 0.25)), curve)


WHEELS = ("b612", "routed", "liberation", "dejavu", "opensans", "roboto")


def drum(rng, digits, tenth, cell_height, typefaces=WHEELS):
    """A row of wheels in a window. `tenth` is None, or the digit of a last wheel in other colours."""
    height = cell_height
    width = int(height * rng.uniform(0.62, 0.78))
    gap = max(2, int(width * rng.uniform(0.04, 0.12)))
    dark = rng.random() < 0.8
    paper, ink = ((24, 24, 26), (232, 230, 220)) if dark else ((226, 224, 214), (26, 26, 28))
    typeface = rng.choice(typefaces)
    cells = [(int(digit), paper, ink) for digit in digits]
    if tenth is not None:
        styles = [((222, 220, 210), (20, 20, 20)), ((170, 30, 28), (240, 236, 228))] if dark else \
                 [((26, 26, 28), (228, 226, 220)), ((176, 32, 30), (244, 240, 232))]
        cells.append((int(tenth), *styles[rng.integers(len(styles))]))
    count = len(cells)
    strip = Image.new("RGB", (count * (width + gap) + gap, height + 2 * gap), (8, 8, 9))
    for index, (digit, back, front) in enumerate(cells):
        last = index == count - 1
        roll = rng.uniform(-0.18, 0.18) if last else rng.normal(0, 0.015)
        strip.paste(wheel(rng, (width, height), digit, roll, back, front, typeface), (gap + index * (width + gap), gap))
    return strip


def segment_shapes(width, height, thick, slant):
    """The seven polygons of one digit in a box."""
    t, h = thick, thick / 2
    middle = height / 2
    gap = thick * 0.12

    def level(y):
        return [(h + gap, y), (t + gap, y - h), (width - t - gap, y - h), (width - h - gap, y), (width - t - gap, y + h),
                (t + gap, y + h)]

    def upright(x, top, bottom):
        return [(x, top + gap), (x + h, top + h + gap), (x + h, bottom - h - gap), (x, bottom - gap),
                (x - h, bottom - h - gap), (x - h, top + h + gap)]

    shapes = {
        "a": level(h), "g": level(middle), "d": level(height - h),
        "f": upright(h, h, middle), "b": upright(width - h, h, middle),
        "e": upright(h, middle, height - h), "c": upright(width - h, middle, height - h),
    }
    return {name: [(x + (height - y) * slant, y) for x, y in points] for name, points in shapes.items()}


def seven_segment(rng, text, height, lit, ghost):
    """A text of digits, spaces, points and colons as a transparent picture. `ghost` is None or the unlit colour."""
    width = height * rng.uniform(0.5, 0.58)
    thick = height * rng.uniform(0.11, 0.16)
    slant = rng.uniform(0.0, 0.12)
    pitch = width * rng.uniform(1.2, 1.36)
    shapes = segment_shapes(width, height, thick, slant)
    narrow = sum(character in ".:," for character in text)
    total = int(pitch * (len(text) - narrow) + thick * 1.6 * narrow + height * slant + thick * 2)
    picture = Image.new("RGBA", (total, int(height + thick)), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    left = thick / 2
    for character in text:
        if character in ".:,":
            spots = [height] if character != ":" else [height * 0.3, height * 0.7]
            for y in spots:
                x = left - thick * 0.4 + (height - y) * slant
                draw.rectangle([x, y - thick / 2, x + thick * 0.8, y + thick / 2], fill=lit)
            left += thick * 1.6
            continue
        for name, points in shapes.items():
            colour = lit if name in SEGMENTS[character] else ghost
            if colour:
                draw.polygon([(left + x, y + thick / 4) for x, y in points], fill=colour)
        left += pitch
    return picture


def screen_text(rng, text, height, colour, typeface):
    """Text as a screen shows it."""
    letters = font(typeface, int(height * 1.38))
    left, top, right, bottom = letters.getbbox(text)
    picture = Image.new("RGBA", (right - left + 8, bottom - top + 8), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((4 - left, 4 - top), text, font=letters, fill=colour)
    return picture


def glow(picture, strength):
    """Light that spills from lit segments."""
    halo = picture.filter(ImageFilter.GaussianBlur(picture.height * 0.08))
    halo.putalpha(halo.getchannel("A").point(lambda a: int(a * strength)))
    halo.alpha_composite(picture)
    return halo
