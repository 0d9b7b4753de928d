"""PNGs of 16 bits a channel, with EXIF where it is wanted."""

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
