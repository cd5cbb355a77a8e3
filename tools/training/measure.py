"""What the networks find and read on photos that they were not trained on."""
import numpy as np
import torch

import data
import nets

# How the reader looks: the whole photo's longest side, and that of a second look, pixels; how much wider than the line a second look is.
FIRST, SECOND, WIDER = 640, 320, 2.5
SURE = 0.1


def peaks(maps, bar=SURE, most=6):
    """Lines from the locator's maps of one picture: rows (score, channel, x, y, length, height, cosine, sine), the surest first."""
    scores = maps[6:9]
    top = torch.nn.functional.max_pool2d(scores[None], 5, 1, 2)[0]
    found = []
    for channel, row, column in torch.nonzero((scores == top) & (scores > bar)).tolist():
        dx, dy, length, height, sine, cosine = maps[:6, row, column].tolist()
        norm = max(1e-6, (sine * sine + cosine * cosine) ** 0.5)
        found.append((float(scores[channel, row, column]), channel, nets.CELL * (column + 0.5) + dx, nets.CELL * (row + 0.5) + dy, length, height,
                      cosine / norm, sine / norm))
    return sorted(found, reverse=True)[:most]


def multiple(side):
    return max(32, round(side / 32) * 32)


@torch.no_grad()
def looked(file, canvas, index, projection, size):
    """The lines that the locator sees in a view."""
    x = data.view(canvas, [index], [projection], size)
    return peaks(file(x)[0].float().cpu())


def corners(line):
    """A line's four corners."""
    x, y, length, height, c, s = line
    along, across = np.array([c, s]) * length / 2, np.array([-s, c]) * height / 2
    return np.array([(x, y) + a * along + b * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def overlap(a, b):
    """The share that two lines have in common (intersection over union), by points of a grid over both."""
    points = np.concatenate([corners(a), corners(b)])
    low, high = points.min(0), points.max(0)
    gx, gy = np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120))

    def inside(line):
        x, y, length, height, c, s = line
        u, v = (gx - x) * c + (gy - y) * s, -(gx - x) * s + (gy - y) * c
        return (abs(u) <= length / 2) & (abs(v) <= height / 2)

    first, second = inside(a), inside(b)
    return float((first & second).sum() / max(1, (first | second).sum()))


def holds(found, true, ends=0.5, above=0.25):
    """Whether a found line, longer by `ends` of its height at both ends and by `above` of it above and below, holds the middle line of the
    true one from end to end, and is not twice as tall."""
    x, y, length, height, c, s = found
    tx, ty, tlength, theight, tc, ts = true
    for way in (-1, 1):
        px, py = tx + way * tc * tlength / 2, ty + way * ts * tlength / 2
        u, v = (px - x) * c + (py - y) * s, -(px - x) * s + (py - y) * c
        if abs(u) > length / 2 + ends * height or abs(v) > (0.5 + above) * height:
            return False
    return 0.5 < height / max(theight, 1e-3) < 2.0


def first_look(file, photos, i, longest=FIRST):
    """The lines on the whole photo i, in its pixels."""
    w, h = photos.sizes[0][i]
    size = tuple(multiple(side * longest / max(w, h)) for side in (w, h))
    stretch = np.diag([size[0] / w, size[1] / h, 1.0])
    found = looked(file, photos.canvases[0], i, stretch, size)
    across, down = w / size[0], h / size[1]
    return [(score, channel, x * across, y * down, length * across, height * across, c, s)
            for score, channel, x, y, length, height, c, s in found]


def second_look(file, photos, i, line):
    """The lines in the surroundings of a line, in the pixels of the photo's surroundings of the display where they show it."""
    row = photos.rows[i]
    _, _, x, y, length, height, c, s = line
    scale = row["near_scale"] / row["whole_scale"]
    x, y = ((v / row["whole_scale"] - edge) * row["near_scale"] for v, edge in zip((x, y), row["near_box"]))
    wide = max(abs(c) * length + abs(s) * height, abs(s) * length + abs(c) * height) * scale * WIDER
    zoom = SECOND / wide
    projection = data.placed(zoom, 0.0, (x, y), (SECOND / 2, SECOND / 2))
    found = looked(file, photos.canvases[1], i, projection, (SECOND, SECOND))
    return [(score, channel, (fx - SECOND / 2) / zoom + x, (fy - SECOND / 2) / zoom + y, fl / zoom, fh / zoom, fc, fs)
            for score, channel, fx, fy, fl, fh, fc, fs in found]


@torch.no_grad()
def located(network, photos, indices):
    """Figures of the locator by kind of display, and what it found on each photo."""
    file = nets.LocatorFile(network)
    out, totals = [], {"analog": [], "digital": []}
    trips = []
    for i in indices:
        row = photos.rows[i]
        found = first_look(file, photos, i)
        best = next((f for f in found if f[1] < 2), None)
        again = second_look(file, photos, i, best) if best else []
        record = dict(file=row["file"], found=[[round(v, 3) for v in f] for f in found], again=[[round(v, 3) for v in f] for f in again])
        out.append(record)
        if row["trip_only"]:
            trips.append(best[0] if best else 0.0)
        if not row["total"]:
            continue
        true, near_true = photos.lines[0][i][0][:6], photos.lines[1][i][0][:6]
        closer = next((f for f in again if f[1] < 2), None)
        any_of = any(holds(f[2:], true) for f in found if f[1] < 2)
        totals[row["kind"]].append((
            best is not None and overlap(best[2:], true) >= 0.5, best is not None and holds(best[2:], true), any_of,
            closer is not None and overlap(closer[2:], near_true) >= 0.5, closer is not None and holds(closer[2:], near_true),
            best is not None and (best[1] == 1) == (row["kind"] == "analog"), best[0] if best else 0.0))
        record["ok"] = [bool(v) for v in totals[row["kind"]][-1][:6]]
    names = ["iou50", "holds", "any_holds", "second_iou50", "second_holds", "kind"]
    figures = {}
    for kind, rows in totals.items():
        if rows:
            figures[kind] = dict(photos=len(rows), **{name: round(float(np.mean([r[n] for r in rows])), 4) for n, name in enumerate(names)})
    figures["trip_only"] = dict(photos=len(trips), total_above_half=round(float(np.mean([t > 0.5 for t in trips])), 4)) if trips else {}
    return dict(figures=figures, photos=out)


def decoded(steps):
    """Greedy CTC: classes, each with the least probability among its steps' best."""
    best, chances = steps.argmax(-1).tolist(), steps.max(-1).values.tolist()
    out, before = [], 0
    for c, p in zip(best, chances):
        if c and c != before:
            out.append([c, p])
        elif c and out:
            out[-1][1] = max(out[-1][1], p)
        before = c
    return [c for c, _ in out], min((p for _, p in out), default=0.0)


def said(classes):
    """Classes as a text: a wheel of tenths as a letter a to j."""
    return "".join(str(c - 1) if c < 11 else "abcdefghij"[c - 11] if c < 21 else "._"[c - 21] for c in classes)


@torch.no_grad()
def read(network, photos, indices):
    """Figures of the line reader by role, on true lines, and what it read."""
    lines = data.LineSet(photos, indices)
    rng = np.random.default_rng(1)
    out, counts = [], {}
    for start in range(0, len(lines.at), 128):
        at = lines.at[start: start + 128]
        strips, widths, labels = lines.batch(rng, 0, True, at)
        steps = torch.softmax(network(data.as_line(strips, widths)).float(), -1).cpu()
        for (i, k), row, wide, label in zip(at, steps, widths.tolist(), labels.tolist()):
            classes, sure = decoded(row[: wide // 4])
            wanted = [c for c in label if c]
            line = photos.rows[i]["lines"][k]
            name = ["drum", "digital", "other"][line["role"]]
            plain = [c - 10 if 11 <= c < 21 else c for c in classes] == [c - 10 if 11 <= c < 21 else c for c in wanted]
            counts.setdefault(name, []).append((classes == wanted, plain, sure))
            out.append(dict(file=photos.rows[i]["file"], line=k, role=name, wanted=said(wanted), read=said(classes), sure=round(sure, 4)))
    figures = {}
    for name, rows in counts.items():
        shares = dict(exact=[r[0] for r in rows], digits=[r[1] for r in rows], sure=[r[2] > 0.9 for r in rows],
                      sure_right=[r[0] for r in rows if r[2] > 0.9] or [0])
        figures[name] = dict(lines=len(rows), **{share: round(float(np.mean(of)), 4) for share, of in shares.items()})
    return dict(figures=figures, lines=out)
