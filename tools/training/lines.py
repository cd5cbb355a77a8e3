"""Lines of characters from a labelled photo: which characters stand in one line, what the line says, where it lies.

A labelled photo gives boxes of single characters, those of trip meters and clocks among them. The line of the total is the chain of
digits that says the label; what remains is joined into other lines.
"""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

# What a line is: the classes of the locator's heat maps.
DRUM, DIGITAL, OTHER = range(3)
# A label of this many digits or fewer on a digital display is a trip meter's: it shows no total.
TRIP_DIGITS = 3


@dataclass
class Line:
    """A line of digits. `role` is DRUM, DIGITAL or OTHER; `text` its digits in reading order, of which the last `fraction`
    stand on a wheel of tenths or behind a point; `spans` where each digit begins and ends along the line, as shares of its length."""

    role: int
    text: str
    fraction: int
    middle: tuple
    direction: tuple
    length: float
    height: float
    spans: list = field(default_factory=list)


@dataclass
class Photo:
    """A labelled photo: its file, kind, value of the label, size, display's box and lines. `total` says that a line of the
    total was found, `trip_only` that the display showed none."""

    file: str
    kind: str
    label: str
    size: tuple
    display: list
    lines: list
    total: bool
    trip_only: bool


def turned(x, y, quarter):
    """A point turned by quarters of a circle, so that a sideways line runs to the right."""
    for _ in range(quarter):
        x, y = y, -x
    return x, y


class Characters:
    """Middles, widths and heights of a photo's characters, seen after `quarter` turns."""

    def __init__(self, labelled, quarter):
        self.text = [c for c, _ in labelled]
        boxes = np.array([b for _, b in labelled], float).reshape(-1, 4)
        self.quarter = quarter
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
        self.x, self.y = turned(x, y, quarter)
        wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        self.w, self.h = (wide, tall) if quarter % 2 == 0 else (tall, wide)

    def follows(self, a, b, slope, reach=3.0):
        """The cost of character `b` being the next one right of `a` on a line of that slope, or None."""
        h = max(self.h[a], self.h[b])
        if not 0.6 < self.h[a] / max(self.h[b], 1e-6) < 1.67:
            return None
        dx, dy = self.x[b] - self.x[a], self.y[b] - self.y[a]
        if not 0.2 * h < dx < reach * h:
            return None
        off = abs(dy - slope * dx) / h if slope is not None else max(0.0, abs(dy) / h - 0.1)
        limit = 0.6 if slope is not None else 0.75 * dx / h
        return None if off > limit else off + 0.1 * dx / h


def chain(chars, label, zeros):
    """The characters that say `label` in one line, and the cost; leading zeros are added where `zeros`."""
    digits = [i for i, c in enumerate(chars.text) if c.isdigit()]
    best = (None, math.inf)

    def search(path, cost):
        nonlocal best
        if cost >= best[1]:
            return
        if len(path) == len(label):
            best = (list(path), cost)
            return
        slope = None
        if len(path) > 1:
            a, b = path[0], path[-1]
            slope = (chars.y[b] - chars.y[a]) / (chars.x[b] - chars.x[a])
        for b in digits:
            if chars.text[b] == label[len(path)] and b not in path:
                step = chars.follows(path[-1], b, slope)
                if step is not None:
                    search(path + [b], cost + step)

    for first in digits:
        if chars.text[first] == label[0]:
            search([first], 0.0)
    path, cost = best
    while path and zeros:
        slope = None
        if len(path) > 1:
            slope = (chars.y[path[-1]] - chars.y[path[0]]) / (chars.x[path[-1]] - chars.x[path[0]])
        before = [(chars.follows(b, path[0], slope, 2.2), b) for b in digits if chars.text[b] == "0" and b not in path]
        before = [(step, b) for step, b in before if step is not None]
        if not before or len(path) > 7:
            break
        path = [min(before)[1]] + path
    return path, cost


def joined(chars, left, slope):
    """The remaining characters joined into lines of that slope; each a list of indices from left to right."""
    order = sorted(left, key=lambda i: chars.x[i])
    lines = []
    for i in order:
        best = None
        for line in lines:
            a = line[-1]
            h = max(chars.h[a], chars.h[i]) if chars.text[a] != "," else chars.h[i]
            tall = chars.text[a] != "," and chars.text[i] != ","
            if tall and not 0.6 < chars.h[a] / chars.h[i] < 1.67:
                continue
            dx, dy = chars.x[i] - chars.x[a], chars.y[i] - chars.y[a]
            gap = dx - (chars.w[a] + chars.w[i]) / 2
            limit = 0.3 if tall else 0.8
            if gap < 0.9 * h and abs(dy - slope * dx) < limit * h and (best is None or gap < best[0]):
                best = (gap, line)
        if best:
            best[1].append(i)
        else:
            lines.append([i])
    return [line for line in lines if sum(chars.text[i].isdigit() for i in line) >= 2]


def measured(chars, path, role, fraction=0):
    """The line through the characters of `path`, in the photo's own coordinates."""
    x, y = chars.x[path], chars.y[path]
    h = float(np.median(chars.h[path]))
    slope = np.polyfit(x, y, 1)[0] if np.ptp(x) > 0.5 * h else 0.0
    angle = math.atan(slope)
    along = np.array([math.cos(angle), math.sin(angle)])
    # A tilted line's characters have upright boxes that are taller than the characters.
    tall = max(h * 0.5, (h - abs(math.sin(angle)) * float(np.median(chars.w[path]))) / max(math.cos(angle), 0.5))
    at = x * along[0] + y * along[1]
    across = -x * along[1] + y * along[0]
    first, last = float((at - chars.w[path] / 2).min()), float((at + chars.w[path] / 2).max())
    middle = along * (first + last) / 2 + np.array([-along[1], along[0]]) * float(np.median(across))
    back = (4 - chars.quarter) % 4
    spans = [((a - w / 2 - first) / (last - first), (a + w / 2 - first) / (last - first)) for a, w in zip(at, chars.w[path])]
    return Line(role, "".join(chars.text[i] for i in path), fraction, turned(*middle, back), turned(*along, back), last - first, tall, spans)


def behind_point(chars, path):
    """How many digits at the end of `path` stand behind a point at its foot; none where three do: that separates thousands.
    A number of six digits has no point: those that are near one belong to a line above."""
    if len(path) > 5:
        return 0
    for i, c in enumerate(chars.text):
        before = [k for k in path if chars.x[k] < chars.x[i]]
        behind = len(path) - len(before)
        if c != "," or not before or not 0 < behind < 3:
            continue
        a, b = before[-1], path[len(before)]
        foot = (chars.y[i] - (chars.y[a] + chars.y[b]) / 2) / chars.h[a]
        if chars.x[i] - chars.x[a] < 1.5 * chars.h[a] and 0.1 < foot < 0.8:
            return behind
    return 0


def half_turned(labelled, label):
    """As the chains of `photo`, but of a drum whose last wheel stands between two digits: all but that one."""
    found = []
    for quarter in range(4) if len(label) > 3 else ():
        chars = Characters(labelled, quarter)
        path, cost = chain(chars, label[:-1], True)
        if path:
            found.append((cost / (len(label) - 2) + (0.3 if quarter else 0), quarter, path, chars))
    return found


def lengthened(line, digit):
    """Adds a wheel with that digit to the end of a line."""
    count = len(line.text)
    pitch = (line.spans[-1][0] - line.spans[0][0]) / max(1, count - 1) * line.length
    share = line.length / (line.length + pitch)
    line.spans = [(a * share, b * share) for a, b in line.spans]
    line.spans.append((line.spans[-1][0] + pitch * share / line.length, 1.0))
    line.middle = tuple(m + d * pitch / 2 for m, d in zip(line.middle, line.direction))
    line.length += pitch
    line.text += digit


def photo(row):
    """A photo by its line in labels.jsonl."""
    label, analog = row["label"].replace(".", "").replace(",", ""), row["kind"] == "analog"
    found = []
    for quarter in range(4):
        chars = Characters(row["characters"], quarter)
        path, cost = chain(chars, label, analog) if label else (None, math.inf)
        if path:
            found.append((cost / max(1, len(label) - 1) + (0.3 if quarter else 0), quarter, path, chars))
    if analog and not found:
        found = half_turned(row["characters"], label)
    lines, total = [], False
    seen = row.get("seen") or {}
    trip_only = not analog and (len(label) <= TRIP_DIGITS or "." in row["label"]) or "seen" in row and seen.get("value") is None
    if found:
        _, quarter, path, chars = min(found, key=lambda f: f[0])
        point = behind_point(chars, path)
        trip_only = trip_only or not analog and point > 0
        role = OTHER if trip_only else DRUM if analog else DIGITAL
        lines.append(measured(chars, path, role, 1 if analog else point))
        if lines[0].text.lstrip("0") != label.lstrip("0"):
            lengthened(lines[0], label[-1])
        total = not trip_only
        slope = math.tan(math.atan2(*reversed(turned(*lines[0].direction, quarter))))
    else:
        chars, path, slope = Characters(row["characters"], 0), [], 0.0
    rest = [i for i in range(len(chars.text)) if i not in path]
    for other in joined(chars, rest, slope):
        digits = [i for i in other if chars.text[i].isdigit()]
        # Numbers of the speed scale beside a drum.
        if analog and len(digits) <= 3 and chars.text[digits[-1]] == "0":
            continue
        lines.append(measured(chars, digits, OTHER, behind_point(chars, digits)))
    return Photo(row["file"], row["kind"], label, (row["width"], row["height"]), row["odometer"][0], lines, total, bool(trip_only))


def photos(folder):
    """All photos of a folder with labels.jsonl and images/."""
    with open(Path(folder) / "labels.jsonl", encoding="utf-8") as rows:
        return [photo(json.loads(row)) for row in rows]
