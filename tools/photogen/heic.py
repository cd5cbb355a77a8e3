"""Writes photos as phones write them, from a drawn one: HEIC of one picture or of tiles, turned, with 10 bits.

An encoder writes each tile; the grid around the tiles (ISO/IEC 23008-12) is put together here, because the encoder's own files
hold one picture.
"""

import argparse
import io
import struct
from pathlib import Path

import pillow_heif
from PIL import Image


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def boxes(data: bytes):
    at = 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + size]
        at += size


def encoded(picture: Image.Image, quality: int, bits: int) -> bytes:
    """A HEIC of one picture, without metadata."""
    out = io.BytesIO()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    if bits == 8:
        heif = pillow_heif.from_pillow(picture)
    else:
        wide = bytes().join(struct.pack("<H", value * 257 & 0xFFC0) for value in picture.tobytes())
        heif = pillow_heif.from_bytes("RGB;16", picture.size, wide)
    heif.save(out, quality=quality)
    return out.getvalue()


def parts(heic: bytes) -> tuple[bytes, bytes]:
    """The decoder's configuration and the coded bytes of a HEIC of one picture."""
    top = dict(boxes(heic))
    meta = dict(boxes(top[b"meta"][4:]))
    properties = dict(boxes(dict(boxes(meta[b"iprp"]))[b"ipco"]))
    return properties[b"hvcC"], top[b"mdat"]


def grid(picture: Image.Image, side: int, quality: int, quarters: int) -> bytes:
    """Tiles of `side` pixels, to be turned by `quarters` quarter turns anticlockwise, as an iPhone writes them."""
    width, height = picture.size
    columns, rows = -(-width // side), -(-height // side)
    padded = Image.new("RGB", (columns * side, rows * side))
    padded.paste(picture)
    tiles = []
    for row in range(rows):
        for column in range(columns):
            tile = padded.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
            tiles.append(parts(encoded(tile, quality, 8)))
    configuration = tiles[0][0]
    assert all(config == configuration for config, _ in tiles)
    count = len(tiles)
    primary = count + 1
    infe = [box(b"infe", struct.pack(">IHH4sB", 0x0200_0000, item, 0, b"hvc1", 0)) for item in range(1, count + 1)]
    infe.append(box(b"infe", struct.pack(">IHH4sB", 0x0200_0000, primary, 0, b"grid", 0)))
    shape = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    owned = box(
        b"ipco",
        box(b"hvcC", configuration),
        box(b"ispe", struct.pack(">III", 0, side, side)),
        box(b"ispe", struct.pack(">III", 0, width, height)),
        box(b"irot", bytes([quarters])),
    )
    named = struct.pack(">II", 0, count + 1)
    named += b"".join(struct.pack(">HB2B", item, 2, 0x80 | 1, 2) for item in range(1, count + 1))
    named += struct.pack(">HB2B", primary, 2, 3, 0x80 | 4)

    def meta(first: int) -> bytes:
        place = struct.pack(">IBBH", 0x0100_0000, 0x44, 0, count + 1)
        at = first
        for item, (_, data) in enumerate(tiles, 1):
            place += struct.pack(">HHHHII", item, 0, 0, 1, at, len(data))
            at += len(data)
        place += struct.pack(">HHHHII", primary, 1, 0, 1, 0, len(shape))  # Method 1: in `idat`.
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8) + b"pict" + bytes(13)),
            box(b"pitm", struct.pack(">IH", 0, primary)),
            box(b"iinf", struct.pack(">IH", 0, count + 1), *infe),
            box(b"iref", bytes(4), box(b"dimg", struct.pack(f">HH{count}H", primary, count, *range(1, count + 1)))),
            box(b"iprp", owned, box(b"ipma", named)),
            box(b"idat", shape),
            box(b"iloc", place),
        )

    kind = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    before = len(kind) + len(meta(0)) + 8
    return kind + meta(before) + box(b"mdat", *(data for _, data in tiles))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("photo", type=Path, help="a photo of any format")
    arguments.add_argument("out", type=Path, help="the .heic file")
    arguments.add_argument("--quality", type=int, default=60, help="1-100")
    arguments.add_argument("--bits", type=int, choices=[8, 10], default=8, help="per sample, of one picture")
    arguments.add_argument("--tiles", type=int, help="side of the tiles; one picture where not given")
    arguments.add_argument("--turned", type=int, choices=range(4), default=0, help="quarters that the tiles are turned back by")
    given = arguments.parse_args()
    picture = Image.open(given.photo).convert("RGB")
    if given.tiles:
        heic = grid(picture.rotate(-90 * given.turned, expand=True), given.tiles, given.quality, given.turned)
    else:
        heic = encoded(picture, given.quality, given.bits)
    given.out.write_bytes(heic)


if __name__ == "__main__":
    main()
