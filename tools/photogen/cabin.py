"""Draws what real photos show around a dashboard: the cabin, the steering wheel, a hand, lamps; the display becomes small."""
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# The dashboard's share of the photo's width.
SHARE = (0.42, 0.75)
LAMPS = [(250, 60, 40), (250, 170, 30), (70, 220, 90), (70, 130, 250)]


def blotches(rng, size, low, high, coarse=(6, 8)):
    """A plane of slowly changing grey with a slight tint."""
    grey = Image.fromarray(rng.uniform(low, high, coarse).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    tint = rng.uniform(0.88, 1.1, 3)
    return Image.merge("RGB", [grey.point(lambda value, factor=factor: min(255, int(value * factor))) for factor in tint])


def lamp(rng, draw, x, y, size, colour):
    """A warning lamp: a ring, a triangle or a bar with something in it."""
    kind, thick = rng.integers(3), max(2, int(size * 0.14))
    box = [x - size / 2, y - size / 2, x + size / 2, y + size / 2]
    if kind == 0:
        draw.ellipse(box, outline=colour, width=thick)
        draw.line([x, y - size * 0.25, x, y + size * 0.05], fill=colour, width=thick)
        draw.ellipse([x - thick / 2, y + size * 0.15, x + thick / 2, y + size * 0.15 + thick], fill=colour)
    elif kind == 1:
        draw.polygon([(x, y - size / 2), (x + size / 2, y + size / 2), (x - size / 2, y + size / 2)], outline=colour, width=thick)
    else:
        draw.arc(box, 90, 270, fill=colour, width=thick)
        for step in (-0.3, 0.0, 0.3):
            draw.line([x + size * 0.1, y + step * size, x + size * 0.5, y + step * size * 1.3], fill=colour, width=thick)


def lamps(rng, dashboard, box):
    """Lit lamps in a row that stays clear of the reading; they glow."""
    layer = Image.new("RGB", dashboard.size)
    draw = ImageDraw.Draw(layer)
    size = dashboard.width * rng.uniform(0.018, 0.03)
    level = dashboard.height * rng.choice([0.1, 0.62, 0.9])
    left = dashboard.width * rng.uniform(0.25, 0.55)
    for place in range(rng.integers(1, 7)):
        x = left + place * size * 1.8
        clear = box is None or x + size < box[0] or x - size > box[2] or level + size < box[1] or level - size > box[3]
        if clear:
            lamp(rng, draw, x, level, size, LAMPS[rng.integers(len(LAMPS))])
    halo = layer.filter(ImageFilter.GaussianBlur(size * 0.4))
    lit = np.maximum(np.asarray(dashboard), np.maximum(np.asarray(layer), np.asarray(halo)))
    return Image.fromarray(lit)


def rim(rng, picture, box):
    """The steering wheel's rim as an arc over or under the reading, never across it, and now and then a hand on it."""
    width, height = picture.size
    thick = height * rng.uniform(0.05, 0.09)
    over = rng.random() < 0.4
    top = min(box[1] - thick * 1.6, height * 0.2) if over else max(box[3] + thick * 0.6, height * 0.8)
    broad, tall = width * rng.uniform(0.42, 0.6), height * rng.uniform(0.6, 0.8)
    middle = width * rng.uniform(0.42, 0.58)
    if over:
        # The sides of a wheel that reaches over the reading pass beside it.
        broad = max(broad, max(middle - box[0], box[2] - middle) * 1.25 + thick)
        tall = max(tall, (box[3] - top) * 2)
    layer = Image.new("L", picture.size)
    draw = ImageDraw.Draw(layer)
    draw.arc([middle - broad, top, middle + broad, top + 2 * tall], 180, 360, fill=255, width=int(thick))
    if rng.random() < 0.5:
        angle = math.radians(rng.choice([205, 220, 320, 335]))
        x, y = middle + broad * math.cos(angle), top + tall + tall * math.sin(angle)
        if y < box[1] - thick * 2 or y > box[3] + thick * 2 or abs(x - (box[0] + box[2]) / 2) > (box[2] - box[0]):
            skin = tuple(int(channel * rng.uniform(0.5, 1.1)) for channel in (205, 160, 130))
            hand = Image.new("L", picture.size)
            pen = ImageDraw.Draw(hand)
            for finger in range(4):
                fx, fy = x + (finger - 1.5) * thick * 0.45, y + abs(finger - 1.5) * thick * 0.15
                pen.ellipse([fx - thick * 0.3, fy - thick * 0.9, fx + thick * 0.3, fy + thick * 0.9], fill=255)
            pen.ellipse([x - thick * 0.9, y + thick * 0.2, x + thick * 0.9, y + thick * 2.4], fill=255)
            picture = Image.composite(Image.new("RGB", picture.size, skin), picture, hand.filter(ImageFilter.GaussianBlur(thick * 0.06)))
    leather = blotches(rng, picture.size, 12, 46)
    return Image.composite(leather, picture, layer.filter(ImageFilter.GaussianBlur(thick * 0.08)))


def around(rng, dashboard, box):
    """The dashboard within its cabin, and where the reading stands then. `box` is None where there is no reading."""
    width, height = dashboard.size
    dashboard = lamps(rng, dashboard, box)
    share = rng.uniform(*SHARE)
    size = (int(width * share), int(height * share))
    left, top = int((width - size[0]) * rng.uniform(0.2, 0.8)), int((height - size[1]) * rng.uniform(0.35, 0.75))
    picture = blotches(rng, dashboard.size, 18, 80)
    light = blotches(rng, (width, height), 60, 250, (3, 8))
    sky = Image.new("L", dashboard.size)
    ImageDraw.Draw(sky).polygon([(0, 0), (width, 0), (width, top * rng.uniform(0.1, 0.5)), (0, top * rng.uniform(0.1, 0.5))], fill=255)
    picture = Image.composite(light, picture, sky.filter(ImageFilter.GaussianBlur(12)))
    frame = Image.new("L", size)
    ImageDraw.Draw(frame).rounded_rectangle([0, 0, size[0] - 1, size[1] - 1], radius=int(size[1] * rng.uniform(0.08, 0.4)), fill=255)
    if box is not None:
        # A round frame must not cut the reading off.
        ImageDraw.Draw(frame).rectangle([int(side * share) + edge for side, edge in zip(box, (-20, -20, 20, 20))], fill=255)
    small = dashboard.resize(size, Image.Resampling.BOX)
    picture.paste(small, (left, top), frame.filter(ImageFilter.GaussianBlur(3)))
    if box is not None:
        box = [side * share + shift for side, shift in zip(box, (left, top, left, top))]
    if rng.random() < 0.75:
        picture = rim(rng, picture, box or [left, top, left + size[0], top + size[1]])
    return picture, box
