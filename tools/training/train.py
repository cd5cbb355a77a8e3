"""Trains the locator or the line reader on a pack of real photos and on drawn ones (draw.py).

  python3 train.py locator PACK.zip OUT --drawn PHOTOS.npz --steps 900              on all photos: OUT/locator.onnx
  python3 train.py line_reader PACK.zip OUT --drawn LINES.npz --steps 1500 --fold 0  without fold 0, which is then measured

PACK.zip is made by pack.py. Stops after --seconds or --steps, whichever comes first; the rate falls with the time.
"""
import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import data
import measure
import nets
SEED = 71
# Which of the maps shows a line of each role: DRUM, DIGITAL, OTHER.
SCORE = [1, 0, 2]
SHAPES = [(512, 384), (384, 512), (480, 640), (480, 480), (640, 480), (352, 640), (320, 320)]


def one_view(rng, photos, i, size):
    """Which source a view of photo i is taken from, and the projection."""
    wide, tall = size
    middle = np.array([wide, tall]) / 2
    quarter = rng.choice([0, 1, 2, 3], p=[0.82, 0.07, 0.04, 0.07]) * math.pi / 2
    angle = quarter + rng.normal(0, 0.1)
    bend = rng.normal(0, 0.1, 2) / max(size)
    near = not photos.drawn[i] and rng.random() < 0.35
    w, h = photos.sizes[int(near)][i]
    if abs(math.sin(quarter)) > 0.5:
        w, h = h, w
    fit = min(wide / w, tall / h)
    source_middle = np.array(photos.sizes[int(near)][i]) / 2
    if near:
        scale = fit * math.exp(rng.uniform(-0.7, 0.5))
        return 1, data.placed(scale, angle, source_middle, middle + rng.uniform(-0.15, 0.15, 2) * size, bend)
    if rng.random() < 0.65 or not len(photos.lines[0][i]):
        scale = max(size) / max(w, h) * math.exp(rng.uniform(-0.25, 0.25))
        if len(photos.lines[0][i]):
            source_middle = source_middle + (photos.lines[0][i][0][:2] - source_middle) * rng.uniform(0, 1)
        return 0, data.placed(scale, angle, source_middle, middle + rng.normal(0, 0.06, 2) * size, bend)
    line = photos.lines[0][i][rng.integers(len(photos.lines[0][i]))]
    scale = min(max(fit * math.exp(rng.uniform(0, 1.2)), 0.1), 2.5)
    return 0, data.placed(scale, angle, line[:2], middle + rng.uniform(-0.35, 0.35, 2) * size, bend)


def locator_batch(rng, gen, photos, indices, size):
    """Views and their lines."""
    wide, tall = size
    chosen = [[], []]
    for i in indices:
        source, projection = one_view(rng, photos, i, size)
        chosen[source].append((i, projection))
    views, lines, boxes, flags = [], [], [], []
    for source, pairs in enumerate(chosen):
        if not pairs:
            continue
        views.append(data.view(photos.canvases[source], [i for i, _ in pairs], [p for _, p in pairs], size))
        for i, projection in pairs:
            seen = data.moved_lines(photos.lines[source][i], projection)
            inside = [row for row in seen if -4 < row[0] < wide + 4 and -4 < row[1] < tall + 4 and row[3] > 3][: data.LINES]
            lines.append(np.concatenate([np.array(inside, np.float32).reshape(-1, 7), np.full((data.LINES - len(inside), 7), -1, np.float32)]))
            x0, y0, x1, y1 = photos.displays[source][i]
            corners = data.moved(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), projection)
            boxes.append([*corners.min(0), *corners.max(0)])
            flags.append([photos.unsure[i], photos.drawn[i]])
    device = photos.canvases[0].device
    x = data.spoilt(torch.cat(views), gen)
    boxes = torch.tensor(np.array(boxes), dtype=torch.float32, device=device)
    return x, torch.tensor(np.stack(lines), device=device), boxes, torch.tensor(flags, device=device)


def locator_loss(raw, lines, boxes, flags):
    """Focal loss for the scores, and how far off the geometry is around each line's middle."""
    count, _, rows, columns = raw.shape
    device = raw.device
    x = ((torch.arange(columns, device=device) + 0.5) * nets.CELL)[None, None, None, :]
    y = ((torch.arange(rows, device=device) + 0.5) * nets.CELL)[None, None, :, None]
    cx, cy, length, height, c, s, role = (lines[:, :, n, None, None] for n in range(7))
    real = role >= 0
    qx, qy = ((torch.floor(v / nets.CELL) + 0.5) * nets.CELL for v in (cx, cy))
    u, v = (x - qx) * c + (y - qy) * s, -(x - qx) * s + (y - qy) * c
    near = torch.exp(-0.5 * ((u / (0.08 * length).clamp(min=2.4)) ** 2 + (v / (0.18 * height).clamp(min=2.4)) ** 2)) * real
    wanted = torch.stack([(near * (role == r)).amax(1) for r in sorted(range(3), key=lambda r: SCORE[r])], 1)
    x0, y0, x1, y1 = (boxes[:, n, None, None] for n in range(4))
    inside = ((x[:, 0] > x0) & (x[:, 0] < x1) & (y[:, 0] > y0) & (y[:, 0] < y1)).float()
    unsure, drawn_one = flags[:, 0, None, None].float(), flags[:, 1, None, None].float()
    sure = 1 - unsure * inside
    other = torch.where(inside > 0, 1.0, 0.25) * (1 - drawn_one)
    weight = torch.stack([sure, sure, other], 1)
    scores = raw[:, 6:9].float()
    p = torch.sigmoid(scores).clamp(1e-4, 1 - 1e-4)
    hit = (wanted > 0.999).float()
    focal = -(hit * (1 - p) ** 2 * torch.log(p) + (1 - hit) * weight * (1 - wanted) ** 4 * p ** 2 * torch.log(1 - p))
    best, which = near.max(1)

    def of(values):
        return torch.gather(values.expand(-1, -1, rows, columns), 1, which[:, None])[:, 0]

    pull = torch.where(best > 0.3, best, torch.zeros_like(best))
    share = pull / (of(height).abs() + 1).clamp(max=60) ** 0.5
    size = torch.log((torch.stack([of(length), of(height)], 1)).clamp(min=1) / nets.CELL)
    offset = torch.stack([of(cx) - x[:, 0], of(cy) - y[:, 0]], 1) / nets.CELL
    way = torch.stack([of(s), of(c)], 1)
    off = F.smooth_l1_loss(raw[:, 0:2].float(), offset, reduction="none", beta=0.5).sum(1) * 0.25
    off = off + F.smooth_l1_loss(raw[:, 2:4].float(), size, reduction="none", beta=0.1).sum(1)
    off = off + F.smooth_l1_loss(raw[:, 4:6].float(), way, reduction="none", beta=0.2).sum(1)
    return focal.sum() / hit.sum().clamp(min=1) + 2.0 * (off * share).sum() / share.sum().clamp(min=1)


class Smooth:
    """The running mean of a network's weights: what is measured and written."""

    def __init__(self, network, keep):
        self.keep, self.steps = keep, 0
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network):
        self.steps += 1
        keep = min(self.keep, self.steps / (self.steps + 10))
        now = network.state_dict()
        floats = [k for k, v in now.items() if v.is_floating_point()]
        torch._foreach_mul_([self.weights[k] for k in floats], keep)
        torch._foreach_add_([self.weights[k] for k in floats], [now[k] for k in floats], alpha=1 - keep)


def steps_of(given):
    """Counts steps until the steps or seconds are over; gives the share of the way."""
    start, step = time.time(), 0
    while True:
        share = max(step / given.steps if given.steps else 0, (time.time() - start) / given.seconds if given.seconds else 0)
        if share >= 1:
            return
        yield step, share
        step += 1


def trained(given, network, loss_of):
    """Trains a network; the network with its smoothed weights."""
    device = given.device
    if given.start:
        load(network, given.start)
    cuda = device == "cuda"
    network = network.to(device)
    if cuda:
        network = network.to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [dict(params=decayed, weight_decay=0.03), dict(params=others, weight_decay=0.0)]
    rule = torch.optim.AdamW(groups, lr=given.rate, **(dict(fused=True) if cuda else {}))
    smooth = Smooth(network, 0.998)
    log, start, total, step = [], time.time(), 0.0, 0
    for step, share in steps_of(given):
        warm = min(1.0, (step + 1) / 200)
        for group in rule.param_groups:
            group["lr"] = given.rate * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * share)))
        loss = loss_of(network, step)
        rule.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        rule.step()
        smooth.update(network)
        total += loss.detach()
        if (step + 1) % given.every == 0:
            log.append((step + 1, round(time.time() - start), float(total) / given.every))
            total = 0.0
            print(given.name, "step %d, %d s, loss %.4f" % log[-1], flush=True)
    print(given.name, "ended after", step + 1, "steps,", round(time.time() - start), "s", flush=True)
    network.load_state_dict(smooth.weights)
    return network.eval(), log


def save(network, path):
    """Keeps a network's weights, filters in half precision: `--start` takes them up again, `nets.py` writes them as ONNX."""
    np.savez(path, **{k: (v.half() if v.ndim > 1 else v).cpu().numpy() for k, v in network.state_dict().items()})


def load(network, path):
    """Takes up weights that `save` kept."""
    with np.load(path) as kept:
        network.load_state_dict({k: torch.from_numpy(kept[k]).to(v.dtype) for k, v in network.state_dict().items()})
    return network


def locator(given, photos, indices):
    rng, gen = np.random.default_rng(SEED), torch.Generator(given.device).manual_seed(SEED)
    real = [i for i in indices if not photos.drawn[i]]
    made = [i for i, d in enumerate(photos.drawn) if d]
    network = nets.Locator()

    def loss_of(network, step):
        size = SHAPES[rng.integers(len(SHAPES))]
        count = max(2, int(given.batch * 512 * 384 / (size[0] * size[1])))
        of_drawn = int(count * 0.2) if made else 0
        chosen = [*rng.choice(real, count - of_drawn), *(rng.choice(made, of_drawn) if of_drawn else [])]
        batch = locator_batch(rng, gen, photos, [int(i) for i in chosen], size)
        with torch.autocast(given.device, torch.bfloat16, enabled=given.device == "cuda"):
            raw = network(batch[0].contiguous(memory_format=torch.channels_last))
        return locator_loss(raw, *batch[1:])

    return trained(given, network, loss_of)


def line_reader(given, photos, indices, drawn_lines):
    rng, gen = np.random.default_rng(SEED), torch.Generator(given.device).manual_seed(SEED)
    lines = data.LineSet(photos, indices)
    network = nets.LineReader()
    pixels, widths, labels = (torch.from_numpy(part) for part in drawn_lines)
    pixels, widths, labels = pixels.to(given.device), widths.to(given.device), labels.to(given.device)

    def loss_of(network, step):
        of_drawn = int(given.batch * 0.4)
        strips, wide, classes = lines.batch(rng, given.batch - of_drawn)
        picked = torch.as_tensor(rng.integers(0, len(pixels), of_drawn), device=given.device)
        more = pixels[picked].permute(0, 3, 1, 2).float() / 255
        x = data.spoilt(torch.cat([strips, more]), gen)
        wide, classes = torch.cat([wide, widths[picked]]), torch.cat([classes, labels[picked]])
        x = data.as_line(x, wide)
        with torch.autocast(given.device, torch.bfloat16, enabled=given.device == "cuda"):
            steps = network(x.contiguous(memory_format=torch.channels_last))
        chances = torch.log_softmax(steps.float(), -1).transpose(0, 1)
        return F.ctc_loss(chances, classes, torch.div(wide, 4, rounding_mode="floor"), (classes > 0).sum(1), zero_infinity=True)

    return trained(given, network, loss_of)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["locator", "line_reader"])
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", default="none", help="the fold that is left out and measured, or none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--limit", type=int, help="the first photos only")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--drawn", type=Path, required=True, help="drawn lines (line_reader) or photos (locator) of draw.py")
    given = parser.parse_args()
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    given.batch = given.batch or (64 if given.what == "locator" else 256)
    held = None if given.fold == "none" else int(given.fold)
    given.name = given.what if held is None else f"{given.what}.fold{held}"
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    photos = data.Photos(given.pack, given.device, given.limit)
    kept = [i for i, row in enumerate(photos.rows) if row["fold"] != held]
    tested = [i for i, row in enumerate(photos.rows) if row["fold"] == held]
    with np.load(given.drawn, allow_pickle=False) as made:
        if given.what == "locator":
            lines = made["lines"]
            photos.add_drawn([(p, int(r), list(map(float, l)) if l[2] > 0 else None) for p, r, l in zip(made["pixels"], made["roles"], lines)])
            network, log = locator(given, photos, kept)
        else:
            network, log = line_reader(given, photos, kept, (made["pixels"], made["widths"], made["labels"]))
    found = {}
    if tested:
        found = (measure.located if given.what == "locator" else measure.read)(network, photos, tested)
        print(given.name, json.dumps(found["figures"]), flush=True)
    (given.out / f"{given.name}.json").write_text(json.dumps(dict(log=log, **found)), encoding="utf-8")
    save(network, given.out / f"{given.name}.npz")
    nets.export(network, given.out / f"{given.name}.onnx")


if __name__ == "__main__":
    main()
