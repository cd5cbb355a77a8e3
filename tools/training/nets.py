"""The two networks: the locator (where lines of digits lie) and the line reader (what a line says). Plain convolutions only."""
import warnings

import torch
from torch import nn
from torch.nn import functional as F

# The locator's map: one cell for so many pixels each way; what each of its channels is. See export().
CELL = 4
MAP = ["x", "y", "width", "height", "sine", "cosine", "digital", "drum", "other"]
# The line reader's classes: blank, ten digits, ten digits on a wheel of tenths, a point, and what parts two numbers.
BLANK, DIGIT, TENTH, POINT, GAP = 0, 1, 11, 21, 22
CLASSES = 23
ROWS = 48


def conv(given, made, size=3, stride=1, groups=1, act=True):
    """A convolution with its normalisation, and what bends it."""
    wide = size if isinstance(size, tuple) else (size, size)
    layers = [nn.Conv2d(given, made, wide, stride, tuple(side // 2 for side in wide), groups=groups, bias=False), nn.BatchNorm2d(made)]
    return nn.Sequential(*layers, *([nn.ReLU(True)] if act else []))


class Inverted(nn.Module):
    """A block of a mobile network: widen, filter each channel, narrow."""

    def __init__(self, given, made, stride=1, widen=4, size=3):
        super().__init__()
        inner = given * widen
        self.body = nn.Sequential(conv(given, inner, 1), conv(inner, inner, size, stride, inner), conv(inner, made, 1, act=False))
        self.same = stride == 1 and given == made

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


class Locator(nn.Module):
    """Lines of digits as peaks in maps of a quarter of the picture's size: gives raw maps, logits and logarithms."""

    def __init__(self):
        super().__init__()
        self.at2 = nn.Sequential(conv(3, 16, 3, 2), conv(16, 16, 3, 1, 16), conv(16, 16, 1, act=False))
        self.at4 = nn.Sequential(Inverted(16, 24, 2), Inverted(24, 24, 1, 3))
        self.at8 = nn.Sequential(Inverted(24, 40, 2), *(Inverted(40, 40, 1, 3, 5) for _ in range(2)))
        self.at16 = nn.Sequential(Inverted(40, 80, 2), *(Inverted(80, 80, 1, 4, 5) for _ in range(3)))
        self.at32 = nn.Sequential(Inverted(80, 160, 2), *(Inverted(160, 160, 1, 4, 5) for _ in range(3)))
        self.side32, self.side16 = conv(160, 96, 1, act=False), conv(80, 96, 1, act=False)
        self.side8, self.side4 = conv(40, 64, 1, act=False), conv(24, 32, 1, act=False)
        self.down16, self.down8 = conv(96, 64, 1, act=False), conv(64, 32, 1, act=False)
        self.mix16, self.mix8, self.mix4 = Inverted(96, 96, 1, 2, 5), Inverted(64, 64, 1, 2, 5), Inverted(32, 32, 1, 2, 5)
        self.head = nn.Sequential(conv(32, 48), nn.Conv2d(48, len(MAP), 1))
        with torch.no_grad():
            self.head[1].bias[6:] = -4.0

    def forward(self, x):
        at4 = self.at4(self.at2(x - 0.45))
        at8 = self.at8(at4)
        at16 = self.at16(at8)
        x = self.side16(at16) + F.interpolate(self.side32(self.at32(at16)), scale_factor=2.0)
        x = self.side8(at8) + F.interpolate(self.down16(self.mix16(x)), scale_factor=2.0)
        x = self.side4(at4) + F.interpolate(self.down8(self.mix8(x)), scale_factor=2.0)
        return self.head(self.mix4(x))


class LocatorFile(nn.Module):
    """What is written as ONNX: offsets and sizes in pixels, scores from 0 to 1."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        raw = self.network(x)
        return torch.cat([raw[:, 0:2] * CELL, torch.exp(raw[:, 2:4]) * CELL, raw[:, 4:6], torch.sigmoid(raw[:, 6:9])], 1)


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), conv(channels, channels, act=False))

    def forward(self, x):
        return F.relu(x + self.body(x))


class Along(nn.Module):
    """Looks to both sides along the line."""

    def __init__(self, channels, size=9):
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, (1, size), groups=channels), conv(channels, channels * 2, 1), conv(channels * 2, channels, 1, act=False))

    def forward(self, x):
        return x + self.body(x)


class LineReader(nn.Module):
    """A line's classes by step, one step for four columns: logits, batch x steps x classes."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Sequential(
            conv(3, 32, 3, 2), Residual(32), conv(32, 64, 3, 2), Residual(64),
            conv(64, 112, 3, (2, 1)), Residual(112), conv(112, 160, 3, (2, 1)), Residual(160))
        self.flat = nn.Sequential(nn.Conv2d(160, 256, (3, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(256), nn.ReLU(True))
        self.along = nn.Sequential(*(Along(256) for _ in range(4)))
        self.drop = nn.Dropout(0.15)
        self.head = nn.Conv2d(256, CLASSES, 1)

    def forward(self, x):
        x = self.head(self.drop(self.along(self.flat(self.rows(x)))))
        return x[:, :, 0].permute(0, 2, 1)


class LineReaderFile(nn.Module):
    """What is written as ONNX: probabilities."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return torch.softmax(self.network(x), -1)


def export(network, path):
    """Writes a network as ONNX, normalisations worked into convolutions, height and width open where the network lets them be."""
    network = network.float().cpu().eval()
    locator = isinstance(network, Locator)
    model, example = (LocatorFile(network), torch.rand(1, 3, 384, 512)) if locator else (LineReaderFile(network), torch.rand(1, 3, ROWS, 320))
    names = dict(input_names=["photo"], output_names=["lines"]) if locator else dict(input_names=["line"], output_names=["steps"])
    axes = {2: "height", 3: "width"} if locator else {3: "width"}
    out = {2: "rows", 3: "columns"} if locator else {1: "count"}
    settings = dict(opset_version=13, dynamic_axes={names["input_names"][0]: axes, names["output_names"][0]: out}, **names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(model, example, str(path), dynamo=False, **settings)
        except TypeError:
            torch.onnx.export(model, example, str(path), **settings)
