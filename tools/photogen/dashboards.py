"""Draws dashboards: gauges, the odometer of one style, and what distracts from it."""
import math

import numpy as np
from PIL import Image, ImageDraw

import odometers
from fonts import font

SIZE = (2560, 1920)
SANS = ["b612", "lato", "liberation", "opensans", "roboto", "robotocondensed", "dejavu"]


def panel(rng):
    """Dark, slightly uneven plastic."""
    width, height = SIZE
    base = rng.integers(16, 44)
    coarse = rng.normal(base, 7, (9, 12)).clip(4, 80).astype(np.uint8)
    tint = rng.uniform(0.85, 1.15, 3)
    plane = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    planes = [plane.point(lambda value, factor=factor: int(value * factor)) for factor in tint]
    picture = Image.merge("RGB", planes)
    draw = ImageDraw.Draw(picture)
    hood = int(height * rng.uniform(0.04, 0.1))
    draw.ellipse([-width * 0.2, -height * 0.6, width * 1.2, hood], fill=(9, 9, 10))
    draw.rectangle([0, height * 0.95, width, height], fill=(12, 12, 13))
    return picture


def gauge(rng, picture, centre, radius, labels, caption, value):
    """A round scale from lower left to lower right with its needle at `value` (0-1)."""
    draw = ImageDraw.Draw(picture)
    x, y = centre
    ink = tuple(int(channel) for channel in rng.integers(205, 246, 3))
    draw.ellipse([x - radius * 1.05, y - radius * 1.05, x + radius * 1.05, y + radius * 1.05], fill=(58, 58, 62))
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(14, 14, 16))
    letters = font(str(rng.choice(SANS)), int(radius * 0.115))

    def spot(share, distance):
        angle = math.radians(225 - 270 * share)
        return x + radius * distance * math.cos(angle), y - radius * distance * math.sin(angle)

    steps = (len(labels) - 1) * 4
    for step in range(steps + 1):
        inner = 0.86 if step % 4 == 0 else 0.91
        draw.line([spot(step / steps, inner), spot(step / steps, 0.96)], fill=ink, width=7 if step % 4 == 0 else 4)
    for index, label in enumerate(labels):
        draw.text(spot(index / (len(labels) - 1), 0.73), label, font=letters, fill=ink, anchor="mm")
    draw.text((x, y - radius * 0.36), caption, font=letters, fill=ink, anchor="mm")
    draw.line([spot(value, -0.12), spot(value, 0.82)], fill=(214, 60, 34), width=13)
    draw.ellipse([x - radius * 0.09, y - radius * 0.09, x + radius * 0.09, y + radius * 0.09], fill=(30, 30, 32))


def speed_labels(rng, unit):
    step, top = (20, 220) if unit != "miles" else (10, 120)
    if unit != "miles" and rng.random() < 0.3:
        step = 30
        top = 240
    return [str(value) for value in range(0, top + 1, step)]


def paste(picture, part, centre):
    """Pastes a part by its centre; returns its box."""
    left, top = int(centre[0] - part.width / 2), int(centre[1] - part.height / 2)
    picture.paste(part, (left, top), part if part.mode == "RGBA" else None)
    return [left, top, left + part.width, top + part.height]


def caption(rng, picture, spot, text, size, colour=(214, 214, 210)):
    ImageDraw.Draw(picture).text(spot, text, font=font(str(rng.choice(SANS)), int(size)), fill=colour, anchor="mm")


def drum_dashboard(rng, scene):
    """One or two round gauges, the wheels in the speedometer."""
    picture = panel(rng)
    width, height = SIZE
    centre = (width * rng.uniform(0.46, 0.54), height * rng.uniform(0.5, 0.56))
    radius = height * rng.uniform(0.41, 0.45)
    unit = scene["unit"]
    for side in (-1, 1):
        if rng.random() < 0.6:
            labels = [["E", "1/2", "F"], ["C", "90", "H"]][side > 0]
            gauge(rng, picture, (centre[0] + side * radius * 1.55, centre[1] + radius * 0.1), radius * 0.42, labels, "",
                  rng.uniform(0.1, 0.9))
    gauge(rng, picture, centre, radius, speed_labels(rng, unit), "MPH" if unit == "miles" else "km/h", rng.uniform(0, 0.03))
    if scene["value"] is None:
        if scene["shows"] == "trip":
            tall = int(radius * rng.uniform(0.14, 0.2))
            trip = odometers.drum(rng, f"{rng.integers(0, 1000):03d}", rng.integers(0, 10), tall)
            box = paste(picture, trip, (centre[0], centre[1] + radius * rng.uniform(0.36, 0.6)))
            if rng.random() < 0.4:
                caption(rng, picture, (centre[0], box[1] - tall * 0.5), "TRIP", tall * 0.5)
        return picture, None
    tall = int(radius * rng.uniform(0.17, 0.22))
    strip = odometers.drum(rng, scene["text"], scene["tenth"], tall)
    spot = (centre[0], centre[1] + radius * rng.uniform(0.3, 0.36))
    box = paste(picture, strip, spot)
    if unit and scene["show_unit"]:
        mark = "miles" if unit == "miles" else "km"
        if rng.random() < 0.5:
            caption(rng, picture, (spot[0], box[1] - tall * 0.42), mark, tall * 0.46)
        else:
            caption(rng, picture, (box[2] + tall * 0.75, spot[1]), mark, tall * 0.5)
    if rng.random() < 0.6:
        trip = odometers.drum(rng, f"{rng.integers(0, 1000):03d}", rng.integers(0, 10), int(tall * 0.8))
        paste(picture, trip, (centre[0], centre[1] + radius * rng.uniform(0.57, 0.62)))
    return picture, box


def glass(rng, size):
    """A liquid-crystal or lit display: background, lit colour, ghost colour or None."""
    kind = rng.choice(["grey", "green", "amber", "blue", "led_red", "led_green", "vfd"])
    back, lit = {
        "grey": ((150, 158, 146), (26, 30, 28)), "green": ((118, 168, 92), (18, 32, 14)),
        "amber": ((222, 132, 38), (40, 18, 6)), "blue": ((26, 52, 128), (214, 228, 250)),
        "led_red": ((14, 6, 6), (250, 58, 44)), "led_green": ((5, 12, 8), (84, 240, 120)),
        "vfd": ((6, 14, 16), (120, 240, 226)),
    }[str(kind)]
    part = rng.uniform(0.05, 0.12)
    ghost = tuple(int(b + (f - b) * part) for b, f in zip(back, lit)) + (255,) if rng.random() < 0.6 else None
    plate = Image.new("RGB", size, back)
    edge = ImageDraw.Draw(plate)
    edge.rectangle([0, 0, size[0] - 1, size[1] - 1], outline=odometers.shade(back, 0.4), width=10)
    return plate, lit + (255,), ghost, str(kind)


def seven_segment_dashboard(rng, scene):
    """Two gauges and a display between or below them."""
    picture = panel(rng)
    width, height = SIZE
    unit = scene["unit"]
    radius = height * rng.uniform(0.28, 0.31)
    level = height * rng.uniform(0.36, 0.4)
    gauge(rng, picture, (width * 0.27, level), radius, speed_labels(rng, unit), "MPH" if unit == "miles" else "km/h", 0.01)
    gauge(rng, picture, (width * 0.73, level), radius, [str(n) for n in range(8)], "x1000 r/min", rng.uniform(0, 0.15))
    size = (int(width * rng.uniform(0.5, 0.58)), int(height * rng.uniform(0.24, 0.28)))
    plate, lit, ghost, kind = glass(rng, size)
    tall = size[1] * rng.uniform(0.36, 0.44)
    small = tall * rng.uniform(0.42, 0.52)
    spot = (size[0] * rng.uniform(0.44, 0.5), size[1] * 0.64)
    box = None
    if scene["value"] is not None:
        text = odometers.seven_segment(rng, scene["text"], tall, lit, ghost)
        text = odometers.glow(text, 0.8) if "led" in kind or kind == "vfd" else text
        box = paste(plate, text, spot)
        if unit and scene["show_unit"]:
            caption(rng, plate, (box[2] + tall * 0.5, box[3] - small * 0.4), "miles" if unit == "miles" else "km", small * 0.8, lit[:3])
        if rng.random() < 0.5:
            caption(rng, plate, (box[0] - small * 1.1, box[1] + small * 0.4), "ODO", small * 0.6, lit[:3])
    elif scene["shows"] == "trip":
        trip = odometers.seven_segment(rng, f"{rng.integers(0, 2000)}.{rng.integers(0, 10)}", tall, lit, ghost)
        end = paste(plate, odometers.glow(trip, 0.8) if "led" in kind or kind == "vfd" else trip, spot)
        if unit:
            caption(rng, plate, (end[2] + tall * 0.5, end[3] - small * 0.4), "miles" if unit == "miles" else "km", small * 0.8, lit[:3])
        if rng.random() < 0.7:
            caption(rng, plate, (end[0] - small * 1.1, end[1] + small * 0.4), str(rng.choice(["TRIP", "TRIP A", "A"])), small * 0.6, lit[:3])
    clock = odometers.seven_segment(rng, f"{rng.integers(0, 24):2d}:{rng.integers(0, 60):02d}", small, lit, ghost)
    paste(plate, clock, (size[0] * 0.17, size[1] * 0.24))
    if rng.random() < 0.6:
        degrees = odometers.seven_segment(rng, f"{rng.integers(-9, 38):d}", small, lit, ghost)
        end = paste(plate, degrees, (size[0] * 0.8, size[1] * 0.24))
        caption(rng, plate, (end[2] + small * 0.6, end[1] + small * 0.5), "°C", small * 0.9, lit[:3])
    at = (int(width / 2 - size[0] / 2), int(height * rng.uniform(0.66, 0.7)))
    picture.paste(plate, at)
    return picture, box and [box[0] + at[0], box[1] + at[1], box[2] + at[0], box[3] + at[1]]


def screen_dashboard(rng, scene):
    """A cluster that is one screen: speed, gear, clock, range, trip and the odometer as text. Notes in the scene between which
    shares of the odometer's box its digits stand."""
    width, height = SIZE
    picture = panel(rng)
    night = rng.random() < 0.8
    back, ink = ((10, 13, 20), (232, 236, 242)) if night else ((206, 212, 218), (24, 28, 34))
    accent = tuple(int(c) for c in rng.choice([[70, 160, 250], [250, 150, 40], [90, 220, 150], [230, 70, 70]]))
    left, top, right, bottom = int(width * 0.08), int(height * 0.14), int(width * 0.92), int(height * 0.86)
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle([left, top, right, bottom], radius=70, fill=back, outline=(60, 62, 66), width=12)
    typeface = str(rng.choice(SANS))
    unit = scene["unit"]
    middle = ((left + right) / 2, top + (bottom - top) * 0.4)
    ring = (bottom - top) * 0.3
    draw.arc([middle[0] - ring, middle[1] - ring, middle[0] + ring, middle[1] + ring], 140, 400, fill=accent, width=22)
    draw.text(middle, str(rng.integers(0, 4)) if rng.random() < 0.6 else "0", font=font(typeface, int(ring * 0.9)), fill=ink, anchor="mm")
    draw.text((middle[0], middle[1] + ring * 0.62), "mph" if unit == "miles" else "km/h", font=font(typeface, 64), fill=ink, anchor="mm")
    small = int(rng.uniform(50, 64))
    faint = tuple(int(b + (f - b) * 0.75) for b, f in zip(back, ink))
    far = "mi" if unit == "miles" else "km"
    draw.text((left + 110, top + 110), f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}", font=font(typeface, small), fill=faint, anchor="lm")
    draw.text((right - 110, top + 110), f"{rng.integers(-9, 38)}°C", font=font(typeface, small), fill=faint, anchor="rm")
    draw.text((left + 130, middle[1] + 60), f"{rng.integers(60, 720)} {far}", font=font(typeface, small), fill=faint, anchor="lm")
    draw.text((left + 130, middle[1] - 20), str(rng.choice(["Range", "RANGE", "DTE"])), font=font(typeface, int(small * 0.7)), fill=faint, anchor="lm")
    draw.text((right - 130, middle[1]), "P  R  N  D", font=font(typeface, small), fill=faint, anchor="rm")
    trip = f"{str(rng.choice(['TRIP', 'TRIP A', 'Trip 1']))} {rng.integers(0, 900)}.{rng.integers(0, 10)} {far}"
    box = None
    line = bottom - (bottom - top) * rng.uniform(0.09, 0.14)
    if scene["value"] is not None:
        text = scene["text"]
        before = ""
        if len(text) > 3 and rng.random() < 0.35:
            text = text[:-3] + str(rng.choice([",", " ", "."])) + text[-3:]
        if rng.random() < 0.6:
            before = str(rng.choice(["ODO ", "Total ", "ODO  "]))
            text = before + text
        number = text
        if unit and scene["show_unit"]:
            text += f" {far}"
        part = odometers.screen_text(rng, text, rng.uniform(52, 76), ink, typeface)
        letters = font(typeface, 100)
        scene["digits"] = tuple(letters.getlength(piece) / letters.getlength(text) for piece in (before, number))
        first = rng.random() < 0.5
        box = paste(picture, part, (left + 130 + part.width / 2 if first else right - 130 - part.width / 2, line))
        place = ((right - 130, line), "rm") if first else ((left + 130, line), "lm")
    else:
        place = ((left + 130, line), "lm")
    if scene["shows"] != "nothing":
        draw.text(place[0], trip, font=font(typeface, int(small * 0.9)), fill=faint, anchor=place[1])
    return picture, box


def speedometer(rng, scene):
    """One or two gauges and nothing else: only scales to read."""
    picture = panel(rng)
    width, height = SIZE
    radius = height * rng.uniform(0.3, 0.45)
    unit = scene["unit"]
    spots = [(0.5, 0.53)] if rng.random() < 0.5 else [(0.28, 0.5), (0.74, 0.5)]
    for index, (x, y) in enumerate(spots):
        small = radius if len(spots) == 1 else min(radius, width * 0.22)
        if index == 0:
            labels, text = speed_labels(rng, unit), "MPH" if unit == "miles" else "km/h"
        else:
            labels, text = [str(n) for n in range(9)], "x1000 r/min"
        gauge(rng, picture, (width * x, height * y), small, labels, text, rng.uniform(0, 0.7))
    return picture, None


def elsewhere(rng, scene):
    """No dashboard at all: a label, a receipt or a number plate, with the numbers that such things bear."""
    width, height = SIZE
    back, ink = [((236, 234, 226), (28, 28, 30)), ((22, 60, 130), (240, 240, 236)), ((232, 196, 40), (20, 20, 20))][rng.integers(3)]
    picture = Image.fromarray(rng.normal(90, 12, (9, 12)).clip(20, 200).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    picture = Image.merge("RGB", [picture] * 3)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = width * 0.2, height * 0.1, width * 0.8, height * 0.9
    draw.rounded_rectangle([left, top, right, bottom], radius=30, fill=back)
    typeface = str(rng.choice(SANS))

    def digits(count):
        return "".join(str(digit) for digit in rng.integers(0, 10, count))

    makers = [
        lambda: f"TOTAL {rng.integers(3, 200)}.{digits(2)}", lambda: f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/2026",
        lambda: f"TEL {digits(3)} {digits(3)} {digits(4)}", lambda: f"{chr(65 + rng.integers(26))}{chr(65 + rng.integers(26))} {digits(3)} {chr(65 + rng.integers(26))}",
        lambda: f"NO. {digits(8)}", lambda: f"{rng.integers(0, 24):02d}:{digits(2)}", lambda: f"EAN {digits(13)}",
        lambda: f"{rng.integers(20, 60)}.{digits(2)} L", lambda: f"PUMP {rng.integers(1, 12)}", lambda: f"ZIP {digits(5)}",
        lambda: "THANK YOU", lambda: f"CARD **** {digits(4)}", lambda: f"AUTH {digits(6)}",
    ]
    rows = int(rng.integers(3, 9))
    pitch = (bottom - top) / (rows + 1)
    for row, pick in enumerate(rng.permutation(len(makers))[:rows]):
        letters = font(typeface, int(min(pitch * 0.5, 110)))
        draw.text((left + 80, top + (row + 1) * pitch), makers[pick](), font=letters, fill=ink, anchor="lm")
    return picture, None


OTHERS = {"speedometer": speedometer, "elsewhere": elsewhere}
STYLES = {"drum": drum_dashboard, "seven_segment": seven_segment_dashboard, "screen": screen_dashboard}
