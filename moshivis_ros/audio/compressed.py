"""Is what came as samples really a file or a compressed stream? Played as samples it would be loud noise."""

from __future__ import annotations

WAV, FLAC, OGG, MP4, WEBM, MP3, AAC = COMPRESSED = (
    "a WAV file", "FLAC data", "Ogg data", "MP4 data", "WebM data", "MP3 data", "AAC data",
)  # fmt: skip

# Kilobits a second by the four bits of an MPEG header, of which 0 and 15 have no length: layers II and III of MPEG-1, and
# of MPEG-2 and 2.5 (ISO/IEC 11172-3 and 13818-3).
_RATES = {
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 0): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
CHAIN = 4  # frames one after another, which is no accident
LARGEST_PAGE = 65307  # bytes, of Ogg: wherever a piece of a stream begins, so near is the next page
LOOKED_AT = 4096  # bytes from the start in which the first of them is looked for: more than a frame has


def compressed(data: bytes) -> tuple[str, bool]:
    """What `data` holds instead of samples: (the name of the kind, or "" for samples; whether that is certain).

    Not certain is a message as long as the MPEG frame with which it seems to begin: an encoder sends such messages one
    after another, but every million messages of noise has one as well.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return WAV, True
    if data[:4] == b"fLaC":
        return FLAC, True
    if data.find(b"OggS\0", 0, LARGEST_PAGE + 4) >= 0:
        return OGG, True
    if data[4:8] == b"ftyp":
        return MP4, True
    if data[:4] == b"\x1aE\xdf\xa3":
        return WEBM, True
    if data[:3] == b"ID3" and data[3:4] in (b"\2", b"\3", b"\4") and data[4:5] == b"\0":
        return MP3, True
    start = data.find(b"\xff", 0, LOOKED_AT)
    while start >= 0:
        name, frames, end = _chain(data, start)
        if frames >= CHAIN or (frames and start == 0 and end == len(data)):
            return name, frames >= CHAIN
        start = data.find(b"\xff", start + 1, LOOKED_AT)
    return "", False


def _chain(data: bytes, start: int) -> tuple[str, int, int]:
    """(name, number of frames of one kind that lie one after another from there, at most CHAIN, where they end)."""
    kind, frames, end = _frame(data, start)[0], 0, start
    while kind and frames < CHAIN:
        found, size = _frame(data, end)
        if found != kind:
            break
        frames += 1
        end += size
    return kind, frames, end


def _frame(data: bytes, start: int) -> tuple[str, int]:
    """(kind, bytes) of the MPEG or AAC frame whose header lies there; ("", 0) where none does."""
    header = data[start : start + 6]
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return "", 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    if header[1] & 0xF6 == 0xF0:  # ADTS
        size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        return (AAC, size) if size > 7 and header[2] >> 2 & 15 < 13 else ("", 0)
    bits, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    rates = _RATES.get((version if version == 3 else 2, layer if version == 3 else 0))
    if version == 1 or layer not in (1, 2) or not rates or not 0 < bits < 15 or rate == 3:
        return "", 0
    samples = 72 if layer == 1 and version != 3 else 144  # an eighth of them: bits to bytes
    return MP3, samples * rates[bits - 1] * 1000 // _SAMPLE_RATES[version][rate] + padding
