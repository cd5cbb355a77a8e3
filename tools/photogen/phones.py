"""Writes a drawn photo as phones' cameras write JPEG: with a second picture behind it, with a film behind it, in wider colours, or
in scans that grow finer.

* `mpo`: two pictures in one file, as cameras for depth and some front cameras write them (CIPA DC-007).
* `motion`: a film of seconds behind the picture, and its length in the picture's XMP, as Android phones write it.
* `p3`: the colours of Display P3, an iPhone's, with the profile that says so.
* `progressive`: as messengers and galleries write a photo anew before they send it (ITU-T T.81 annex G).
"""

import argparse
import io
import struct
from pathlib import Path

from PIL import Image

# Columns are red, green and blue in CIE XYZ, white at D65 (SMPTE EG 432-1; IEC 61966-2-1).
P3 = ((0.4865709, 0.2656677, 0.1982173), (0.2289746, 0.6917385, 0.0792869), (0.0, 0.0451134, 1.0439444))
SRGB = ((0.4123908, 0.3575843, 0.1804808), (0.2126390, 0.7151687, 0.0721923), (0.0193308, 0.1191948, 0.9505322))
# From white at D65 to the profiles' D50 (Bradford).
TO_D50 = ((1.0478112, 0.0228866, -0.0501270), (0.0295424, 0.9904844, -0.0170491), (-0.0092345, 0.0150436, 0.7521316))


def product(a, b):
    return [[sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)] for i in range(3)]


def inverse(m):
    def minor(i, j):
        (a, b), (c, d) = [[m[r][c] for c in range(3) if c != j] for r in range(3) if r != i]
        return (a * d - b * c) * (-1) ** (i + j)

    determinant = sum(m[0][j] * minor(0, j) for j in range(3))
    return [[minor(j, i) / determinant for j in range(3)] for i in range(3)]


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def p3_profile() -> bytes:
    """An ICC profile (ISO 15076-1) of three primaries and one curve."""
    primaries = product(TO_D50, P3)
    tags = {
        b"desc": b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, 20, 28) + "Display P3".encode("utf-16-be"),
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642) + fixed(1.0) + fixed(0.8249),
    }
    for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ")):
        tags[name] = b"XYZ \0\0\0\0" + b"".join(fixed(row[column]) for row in primaries)
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0)
    curve += b"".join(fixed(value) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    table, data, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        tag += bytes(-len(tag) % 4)
        table += name + struct.pack(">II", at + len(data), len(tag))
        data += tag
    header = struct.pack(">I4sI4s4s4s12s4s", at + len(data), b"\0\0\0\0", 0x0400_0000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp")
    header += bytes(28) + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def in_p3(picture: Image.Image) -> Image.Image:
    """The same colours, counted in Display P3's primaries."""
    matrix = product(inverse(P3), SRGB)

    def linear(value):
        value /= 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    def coded(value):
        value = min(max(value, 0), 1)
        return round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))

    light = [linear(value) for value in range(256)]
    code = [coded(step / 4095) for step in range(4096)]
    out = bytearray(picture.tobytes())
    for at in range(0, len(out), 3):
        rgb = [light[value] for value in out[at : at + 3]]
        for channel, row in enumerate(matrix):
            value = row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2]
            out[at + channel] = code[min(max(round(value * 4095), 0), 4095)]
    return Image.frombytes("RGB", picture.size, bytes(out))


def motion(jpeg: bytes) -> bytes:
    """A film behind the picture: its boxes are there, its frames are noise that no reader should look at."""
    film = struct.pack(">I4s4sI4s", 20, b"ftyp", b"mp42", 0, b"isom") + struct.pack(">I4s", 8 + 4096, b"mdat")
    film += bytes((7 * n * n + n) % 251 for n in range(4096))
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:MotionPhoto="1" '
        f'GCamera:MotionPhotoVersion="1" GCamera:MicroVideoOffset="{len(film)}"/></rdf:RDF></x:xmpmeta>'
    ).encode()
    return jpeg[:2] + struct.pack(">BBH", 0xFF, 0xE1, 2 + len(xmp)) + xmp + jpeg[2:] + film


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=["mpo", "motion", "p3", "progressive"], required=True)
    parser.add_argument("--quality", type=int, default=85)
    given = parser.parse_args()
    picture = Image.open(given.photo).convert("RGB")
    out = io.BytesIO()
    if given.kind == "mpo":
        small = picture.resize((picture.width // 4, picture.height // 4))
        picture.save(out, "MPO", save_all=True, append_images=[small], quality=given.quality)
    elif given.kind == "p3":
        in_p3(picture).save(out, "JPEG", quality=given.quality, icc_profile=p3_profile())
    else:
        picture.save(out, "JPEG", quality=given.quality, progressive=given.kind == "progressive")
    given.out.write_bytes(motion(out.getvalue()) if given.kind == "motion" else out.getvalue())


if __name__ == "__main__":
    main()
