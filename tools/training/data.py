"""A pack of photos in memory, and views of it: what the networks see while they are trained, turned, bent and spoilt on the device."""
import io
import json
import math
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from drawn import COLUMNS, MOST
from lines import DRUM, OTHER
from nets import DIGIT, POINT, ROWS, TENTH

WHOLE, NEAR, GREY = 640, 512, 114
# The most lines that a photo's target holds.
LINES = 6


def canvas(pictures, side, device):
    """Pictures on square canvases as one tensor of bytes, N x 3 x side x side."""
    made = torch.full((len(pictures), 3, side, side), GREY, dtype=torch.uint8)
    for i, picture in enumerate(pictures):
        made[i, :, : picture.shape[0], : picture.shape[1]] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return made.to(device)


class Photos:
    """Photos and their lines. `lines[source][i]` has a row (x, y, length, height, cosine, sine, role) for each line of photo i in the
    pixels of that source: 0 the whole photo, 1 the surroundings of its display."""

    def __init__(self, path, device, limit=None):
        with zipfile.ZipFile(path) as archive:
            self.rows = json.loads(archive.read("index.json"))[:limit]
            files = [[archive.read(f"{name}/{i}.webp") for i in range(len(self.rows))] for name in ("whole", "near")]

        def decoded(data):
            return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

        with ThreadPoolExecutor() as pool:
            whole, near = (list(pool.map(decoded, datas)) for datas in files)
        self.sizes = [[(p.shape[1], p.shape[0]) for p in pictures] for pictures in (whole, near)]
        self.canvases = [canvas(whole, WHOLE, device), canvas(near, NEAR, device)]
        self.lines, self.displays = [[], []], [[], []]
        for row in self.rows:
            for source, (scale, left, top) in enumerate(((row["whole_scale"], 0, 0), (row["near_scale"], *row["near_box"][:2]))):
                self.lines[source].append(np.array([[
                    (line["middle"][0] - left) * scale, (line["middle"][1] - top) * scale, line["length"] * scale, line["height"] * scale,
                    *line["direction"], line["role"]] for line in row["lines"]], np.float32).reshape(-1, 7))
                x0, y0, x1, y1 = row["display"]
                self.displays[source].append([(x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale])
        # Where a total stands in the display that the labels do not point to, nothing is said about it.
        self.unsure = [not row["total"] and not row["trip_only"] for row in self.rows]
        self.drawn = [False] * len(self.rows)

    def add_drawn(self, photos):
        """Adds drawn photos: pixels, role and line; they have no surroundings."""
        device = self.canvases[0].device
        self.canvases[0] = torch.cat([self.canvases[0], canvas([p for p, *_ in photos], WHOLE, device)])
        for pixels, role, line in photos:
            self.sizes[0].append((pixels.shape[1], pixels.shape[0]))
            self.lines[0].append(np.array([[*line, role]] if line else [], np.float32).reshape(-1, 7))
            self.displays[0].append([0, 0, 0, 0])
            self.unsure.append(False)
            self.drawn.append(True)


def placed(scale, angle, source_middle, middle, bend=(0.0, 0.0)):
    """The projection from a source's pixels to a view's: turned and scaled about a point that comes to `middle`, then bent."""
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    (sx, sy), (mx, my) = source_middle, middle
    flat = np.array([[c, -s, -c * sx + s * sy], [s, c, -s * sx - c * sy], [0, 0, 1]])
    bent = np.array([[1, 0, 0], [0, 1, 0], [bend[0], bend[1], 1]])
    shift = np.array([[1, 0, mx], [0, 1, my], [0, 0, 1]])
    return shift @ bent @ flat


def moved(points, projection):
    points = np.concatenate([points, np.ones((len(points), 1))], 1) @ projection.T
    return points[:, :2] / points[:, 2:]


def moved_lines(lines, projection):
    """Lines as a projection shows them."""
    if not len(lines):
        return lines
    middle, along = lines[:, :2], lines[:, 4:6] * lines[:, 2:3] / 2
    across = np.stack([-lines[:, 5], lines[:, 4]], 1) * lines[:, 3:4] / 2
    a, b, up, down, m = (moved(p, projection) for p in (middle - along, middle + along, middle - across, middle + across, middle))
    length, height = np.linalg.norm(b - a, axis=1), np.linalg.norm(down - up, axis=1)
    return np.concatenate([m, length[:, None], height[:, None], (b - a) / np.maximum(length, 1e-3)[:, None], lines[:, 6:]], 1).astype(np.float32)


def view(canvases, indices, projections, size):
    """Views of photos: floats from 0 to 1, batch x 3 x height x width, sampled twice as fine as shown."""
    wide, tall = size
    device, side = canvases.device, canvases.shape[-1]
    inverse = torch.tensor(np.linalg.inv(np.stack(projections)), dtype=torch.float32, device=device)
    x = (torch.arange(wide * 2, device=device) + 0.5) / 2
    y = (torch.arange(tall * 2, device=device) + 0.5) / 2
    grid = torch.stack([x[None].expand(tall * 2, -1), y[:, None].expand(-1, wide * 2), torch.ones(tall * 2, wide * 2, device=device)], -1)
    source = torch.einsum("hwc,bdc->bhwd", grid, inverse)
    source = source[..., :2] / source[..., 2:].clamp(min=1e-3)
    return sampled(canvases, indices, source, side)


def sampled(canvases, indices, source, side):
    """What stands at points of the canvases, two points each way per pixel of the view."""
    picked = canvases[torch.as_tensor(indices, device=canvases.device)].to(torch.float32)
    points = (source * 2 / side) - 1
    out = F.grid_sample(picked - GREY, points, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d((out + GREY) / 255, 2)


def spoilt(x, gen):
    """Light, colour, haze, blur, motion, glare and noise, each picture its own."""
    count, device = x.shape[0], x.device

    def rand(*shape):
        return torch.rand(*shape, device=device, generator=gen)

    def each(low, high):
        return low + (high - low) * rand(count, 1, 1, 1)

    def some(share):
        return (rand(count, 1, 1, 1) < share).float()

    small = some(0.3)[:, 0, 0, 0].bool()
    if small.any():
        share = float(0.35 + 0.5 * rand(1))
        shrunk = F.interpolate(x[small], scale_factor=share, mode="bilinear", align_corners=False, recompute_scale_factor=False)
        x = x.clone()
        x[small] = F.interpolate(shrunk, size=x.shape[2:], mode="bilinear", align_corners=False)
    for group in range(4):
        if group < count and rand(1) < 0.35:
            x = x.clone()
            x[group::4] = blurred(x[group::4].contiguous(), float(rand(1)), float(rand(1)), bool(rand(1) < 0.4))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * each(0.2, 1.5)
    x = x * (1 + 0.3 * (rand(count, 3, 1, 1) - 0.5))
    x = x.clamp(1e-4, 1.5) ** torch.exp(0.7 * (rand(count, 1, 1, 1) - 0.5) * 2)
    x = x * torch.exp(each(-0.9, 0.35) * some(0.7))
    haze = each(0, 0.5) * some(0.25)
    x = x * (1 - haze) + haze * rand(count, 3, 1, 1)
    coarse = F.interpolate(rand(count, 1, 3, 4), size=x.shape[2:], mode="bicubic", align_corners=False)
    x = x * (1 + (coarse - 0.5) * each(0, 0.9) * some(0.5)) + (coarse - 0.4).clamp(min=0) * each(0, 0.8) * some(0.2)
    x = x + torch.randn(x.shape, device=device, generator=gen) * each(0, 0.07) * some(0.8)
    inverted = some(0.03)
    return (x * (1 - inverted) + (1 - x) * inverted).clamp(0, 1)


def blurred(x, strength, angle, motion):
    """Out of focus, or moved along a stroke."""
    reach = 4
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
    if motion:
        c, s = math.cos(math.pi * angle), math.sin(math.pi * angle)
        across = (-s * at[None] + c * at[:, None]) / 0.6
        along = (c * at[None] + s * at[:, None]) / (0.8 + 2.6 * strength)
        kernel = torch.exp(-across ** 2 / 2) * (along.abs() < 1).float()
    else:
        kernel = torch.exp(-(at[None] ** 2 + at[:, None] ** 2) / (2 * (0.3 + 1.4 * strength) ** 2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    return F.conv2d(F.pad(x, [reach] * 4, mode="replicate"), kernel, groups=3)


class LineSet:
    """Single lines of real photos, for the line reader."""

    def __init__(self, photos, indices):
        self.photos, self.at = photos, []
        for i in indices:
            for k, line in enumerate(photos.rows[i]["lines"]):
                if line["role"] != OTHER or len(line["text"]) >= 2:
                    self.at.append((i, k))
        shares = np.array([1.0 if photos.rows[i]["lines"][k]["role"] != OTHER else 0.35 for i, k in self.at])
        self.shares = shares / shares.sum()

    def classes(self, i, k):
        """The classes of a line's characters."""
        line = self.photos.rows[i]["lines"][k]
        plain = [DIGIT + int(c) for c in line["text"]]
        behind = line["fraction"]
        if line["role"] == DRUM and behind:
            plain[-1] += TENTH - DIGIT
        elif behind:
            plain.insert(len(plain) - behind, POINT)
        return plain

    def shuffled(self, rng, i, k):
        """The line's classes and a table (shares of the line, before and after) by which its characters change places."""
        line = self.photos.rows[i]["lines"][k]
        classes, spans = self.classes(i, k), line["spans"]
        if len(spans) < 3 or POINT in classes or rng.random() > 0.45:
            return classes, None
        edges = [0.0, *((spans[n][1] + spans[n + 1][0]) / 2 for n in range(len(spans) - 1)), 1.0]
        if min(b - a for a, b in zip(edges, edges[1:])) < 0.25 / len(spans):
            return classes, None
        drum = line["role"] == DRUM
        free = len(spans) - drum
        picked = [int(n) for n in rng.integers(0, free, free)]
        if drum:
            picked.append(int(rng.integers(0, free)) if rng.random() < 0.4 else free)
        before = np.concatenate([[edges[n] + 1e-4, edges[n + 1] - 1e-4] for n in picked])
        widths = np.array([edges[n + 1] - edges[n] for n in picked])
        ends = np.concatenate([[0], np.cumsum(widths)])
        after = np.concatenate([[a + 1e-4, b - 1e-4] for a, b in zip(ends, ends[1:])])
        return [classes[n] for n in picked], (after, before, float(ends[-1]))

    def batch(self, rng, count, steady=False, at=None):
        """Strips of lines, and their classes: each cut with its own jitter, none where `steady`."""
        photos, device = self.photos, self.photos.canvases[1].device
        chosen = at if at is not None else [self.at[n] for n in rng.choice(len(self.at), count, p=self.shares)]
        tables, frames, labels, widths = [], [], np.zeros((len(chosen), MOST), np.int64), []
        for row, (i, k) in zip(labels, chosen):
            x, y, length, height, c, s, _ = (float(v) for v in photos.lines[1][i][k])
            classes, table = (self.classes(i, k), None) if steady else self.shuffled(rng, i, k)
            grown = table[2] if table else 1.0
            ends = (0.5, 0.5) if steady else rng.uniform(0.12, 0.95, 2)
            tall = 1.5 * (1 if steady else rng.uniform(0.82, 1.25)) * height
            first, last = -ends[0] * height, grown * length + ends[1] * height
            wide = int(min(COLUMNS, max(64, round(ROWS * (last - first) / tall * (1 if steady else rng.uniform(0.92, 1.08)) / 8) * 8)))
            at_view = first + (np.arange(COLUMNS * 2) + 0.5) / (2 * wide) * (last - first)
            if table:
                inner = np.interp(at_view / length, *table[:2])
                at_view = np.where(at_view < 0, at_view, np.where(at_view > grown * length, at_view - (grown - 1) * length, inner * length))
            turn, shift, lean, bow = (0.0,) * 4 if steady else rng.normal(0, (0.03, 0.07, 0.08, 0.02))
            shift *= height
            tables.append(at_view - length / 2)
            frames.append((x, y, c, s, tall, turn, shift, lean, bow / max(height, 1)))
            widths.append(wide)
            row[: len(classes)] = classes
        u = torch.tensor(np.stack(tables), dtype=torch.float32, device=device)[:, None, :]
        x, y, c, s, tall, turn, shift, lean, bow = (torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in zip(*frames))
        v = ((torch.arange(ROWS * 2, device=device) + 0.5) / (2 * ROWS) - 0.5)[None, :, None] * tall
        u, v = u + lean * v, v + shift + turn * u + bow * u * u / 10
        source = torch.stack([x + c * u - s * v, y + s * u + c * v], -1)
        strips = sampled(photos.canvases[1], [i for i, _ in chosen], source, NEAR)
        return strips, torch.tensor(widths, device=device), torch.tensor(labels, device=device)


def as_line(strips, widths):
    """Strips as the line reader takes them: blue, green, red from -1 to 1, and 0 behind a strip's own columns."""
    inside = (torch.arange(strips.shape[-1], device=strips.device)[None] < widths[:, None])[:, None, None]
    return (strips.flip(1) * 2 - 1) * inside
