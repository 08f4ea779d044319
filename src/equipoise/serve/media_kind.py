"""Which container a file begins as: only audio and video are handed to a decoder.

FFmpeg also opens playlists and lists of other files, which name files of this machine and addresses of the network.
What begins as one of the containers below is none of these.
"""

from __future__ import annotations

HEAD = 512  # bytes that tell

_STARTS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "MP4 or QuickTime"),
    (4, b"moov", "QuickTime"),
    (4, b"mdat", "QuickTime"),
    (4, b"wide", "QuickTime"),
    (4, b"skip", "QuickTime"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"OggS", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"ID3", "MP3"),
    (0, b"\x00\x00\x01\xba", "MPEG program stream"),
    (0, b"\x00\x00\x01\xb3", "MPEG video"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF or WMV"),
    (0, b"caff", "CAF"),
    (0, b"#!AMR", "AMR"),
)
_RIFF = {b"WAVE": "WAV", b"AVI ": "AVI"}
_TS_PACKET = 188


def media_kind(head: bytes) -> str | None:
    """The container that a file's first bytes announce, or None.

    Args:
        head: at least `HEAD` bytes, or the whole file where it is shorter.

    >>> media_kind(b"RIFF\\x24\\x00\\x00\\x00WAVEfmt ")
    'WAV'
    >>> media_kind(b"#EXTM3U\\n/etc/passwd") is None
    True
    """
    for at, magic, name in _STARTS:
        if head[at : at + len(magic)] == magic:
            return name
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == 0x47:
        return "MPEG transport stream"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # 11 bits of sync begin a frame
        return "MP3 or AAC"
    return None
