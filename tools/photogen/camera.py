"""What happens between a dashboard and a file: angle, light, focus, sensor noise and compression."""
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Upper ends by level: tilt in degrees, shift of corners (share of width), least light, blur and noise in pixels and levels,
# least JPEG quality.
LEVELS = {
    "clean": dict(tilt=1.5, corner=0.01, gain=(0.9, 1.1), blur=(0.3, 0.5), noise=(1, 2), quality=(84, 92)),
    "mid": dict(tilt=4.0, corner=0.03, gain=(0.65, 1.15), blur=(0.4, 1.1), noise=(2, 5), quality=(62, 86)),
    "hard": dict(tilt=8.0, corner=0.05, gain=(0.35, 1.25), blur=(0.8, 1.9), noise=(4, 9), quality=(40, 70)),
    # What a phone makes of a cabin whose only light is the dashboard's.
    "night": dict(tilt=4.0, corner=0.03, gain=(0.3, 0.42), blur=(0.5, 0.9), noise=(4, 7), quality=(62, 80)),
}


def solve(source, target):
    """The eight numbers of the projection that PIL wants: from a target point to its source point."""
    rows, right = [], []
    for (x, y), (u, v) in zip(target, source):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.linalg.solve(np.array(rows, float), np.array(right, float))


def reflect(rng, picture, strength):
    """A soft streak of light from the window."""
    width, height = picture.size
    layer = Image.new("L", (width // 8, height // 8), 0)
    x = rng.uniform(0, width / 8)
    draw = ImageDraw.Draw(layer)
    lean, broad = rng.uniform(-60, 60), rng.uniform(8, 30)
    draw.polygon([(x, 0), (x + broad, 0), (x + broad + lean, height / 8), (x + lean, height / 8)], fill=int(255 * strength))
    layer = layer.filter(ImageFilter.GaussianBlur(9)).resize(picture.size, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", picture.size, (235, 238, 245)), picture, layer)


def glare(rng, dashboard, box):
    """A lamp's reflection that hides what stands in `box`: pure white over it and well beyond, soft at its edge."""
    left, top, right, bottom = box
    broad, tall = (right - left) * rng.uniform(0.62, 0.75), (bottom - top) * rng.uniform(1.1, 1.9)
    x, y = (left + right) / 2, (top + bottom) / 2
    layer = Image.new("L", dashboard.size, 0)
    ImageDraw.Draw(layer).rounded_rectangle([x - broad, y - tall, x + broad, y + tall], radius=min(broad, tall) * 0.8, fill=255)
    layer = layer.filter(ImageFilter.GaussianBlur((bottom - top) * 0.12))
    return Image.composite(Image.new("RGB", dashboard.size, (255, 255, 253)), dashboard, layer)


def smear(rng, picture):
    """The picture of a phone in motion: the mean of copies along a stroke of 6-9 % of the width: one to three digits."""
    length, angle = picture.width * rng.uniform(0.06, 0.09), rng.uniform(0, np.pi)
    steps = 64
    total = np.zeros((picture.height, picture.width, 3), np.float32)
    for step in range(steps):
        along = (step / (steps - 1) - 0.5) * length
        shift = (1, 0, along * np.cos(angle), 0, 1, along * np.sin(angle))
        total += np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR))
    return Image.fromarray((total / steps).astype(np.uint8))


def seen_at(source, points, size):
    """Where points of the dashboard lie on a photo of that size whose corners show the dashboard's points `source`."""
    width, height = size
    turned = solve([(0, 0), (width, 0), (width, height), (0, height)], source)
    x, y = np.array(points, float).T
    below = turned[6] * x + turned[7] * y + 1
    return np.stack([(turned[0] * x + turned[1] * y + turned[2]) / below, (turned[3] * x + turned[4] * y + turned[5]) / below], 1)


def shoot(rng, dashboard, size, level, spoil, box=None):
    """The dashboard as a camera sees it, the quality of its file, and the dashboard's points at the photo's corners. `box` is where
    the reading stands on the dashboard."""
    setting = LEVELS[level]
    if spoil == "glare":
        dashboard = glare(rng, dashboard, box)
    width, height = dashboard.size
    tilt = np.deg2rad(rng.uniform(-setting["tilt"], setting["tilt"]))
    zoom = rng.uniform(0.88, 1.0) if level != "clean" else rng.uniform(0.94, 1.0)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    middle = np.array([width / 2, height / 2])
    bent = corners + rng.uniform(-1, 1, (4, 2)) * setting["corner"] * width
    source = (bent - middle) @ turn.T * zoom + middle
    fine = 2 if size[0] < width else 1
    broad, tall = size[0] * fine, size[1] * fine
    target = [(0, 0), (broad, 0), (broad, tall), (0, tall)]
    picture = dashboard.transform((broad, tall), Image.Transform.PERSPECTIVE, solve(source, target), Image.Resampling.BICUBIC)
    picture = picture.resize(size, Image.Resampling.BOX)
    if rng.random() < 0.4:
        picture = reflect(rng, picture, rng.uniform(0.03, 0.16))
    blur = 16.0 if spoil == "blur" else rng.uniform(*setting["blur"])
    if spoil == "motion":
        picture = smear(rng, picture)
    picture = picture.filter(ImageFilter.GaussianBlur(blur * size[0] / 1280))
    gain = 0.045 if spoil == "dark" else rng.uniform(*setting["gain"])
    values = np.asarray(picture, np.float32) * gain
    if spoil == "over_exposed":
        values = values * 3 + 420
    y, x = np.mgrid[-1:1:size[1] * 1j, -1:1:size[0] * 1j]
    values *= (1 - rng.uniform(0.0, 0.3) * (x ** 2 + y ** 2) / 2)[..., None]
    noise = rng.uniform(*setting["noise"]) * (0.3 if spoil in ("dark", "blur") else 1)
    values += rng.normal(0, noise, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)), int(rng.integers(*setting["quality"])), source


def encode(picture, kind, quality, orientation):
    """The file's bytes. An orientation other than 1 stores the picture turned, as a phone held on its side does."""
    stored = {1: picture, 3: picture.transpose(Image.Transpose.ROTATE_180), 6: picture.transpose(Image.Transpose.ROTATE_90),
              8: picture.transpose(Image.Transpose.ROTATE_270)}[orientation]
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    out = io.BytesIO()
    if kind == "png":
        # Noise does not compress: a median and 32 colours keep a photo small without losing an edge.
        stored.filter(ImageFilter.MedianFilter(5)).quantize(32, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    elif kind == "webp":
        stored.save(out, "WEBP", quality=quality, exif=exif)
    elif kind == "heic":
        import heic  # Its encoder is not needed for the other kinds.

        # The container's quarter turns go anticlockwise. HEVC's quality is another scale: half of JPEG's looks alike.
        out.write(heic.grid(stored, 512, quality // 2, {1: 0, 3: 2, 6: 3, 8: 1}[orientation]))
    else:
        stored.save(out, "JPEG", quality=quality, exif=exif)
    return out.getvalue()
