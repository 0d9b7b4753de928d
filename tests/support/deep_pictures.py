"""PNGs and TIFFs of 16 bits a channel, with an orientation where it is wanted."""

import struct
import zlib


def write_deep_png(file, pixels, orientation=None, after=False):
    """By the PNG specification: channels of 16 bits, the large end first, rows without a filter. EXIF stands before the pixels,
    or `after` them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    if orientation is not None:  # one entry of TIFF: the tag, a short, one of them
        exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        parts.insert(2 if after else 1, chunk(b"eXIf", exif))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_deep_tiff(file, pixels, orientation=1, compression=1, data=None):
    """By TIFF 6.0: one strip, the small end first; `data`: the strip, if it is not the pixels as they are."""
    height, width, n = pixels.shape
    data = pixels.astype("<u2").tobytes() if data is None else data
    tags = {256: width, 257: height, 258: 0, 259: compression, 262: 2, 273: 0, 274: orientation, 277: n, 278: height}
    tags |= {279: len(data)} | ({338: 2} if n == 4 else {})
    after = 8 + 2 + 12 * len(tags) + 4
    tags |= {258: after, 273: after + 2 * n}  # where the bits of the channels stand, and after them the strip
    shorts = (258, 259, 262, 274, 277, 338)
    entries = [struct.pack("<HHII", tag, 3 if tag in shorts else 4, n if tag == 258 else 1, tags[tag]) for tag in sorted(tags)]
    parts = [
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)),
        *entries,
        struct.pack("<I", 0),
        struct.pack(f"<{n}H", *[16] * n),
        data,
    ]
    file.write_bytes(b"".join(parts))
