from __future__ import annotations

from pathlib import Path

import pytest
from tests.features.clips import square, tone, write_clip

from equipoise.serve.media_kind import HEAD, media_kind


@pytest.mark.parametrize(
    ("name", "codecs", "kind"),
    [
        ("a.mp4", {}, "MP4 or QuickTime"),
        ("a.mov", {}, "MP4 or QuickTime"),
        ("a.mkv", {}, "Matroska or WebM"),
        ("a.webm", {"audio_codec": "libopus", "video_codec": "libvpx"}, "Matroska or WebM"),
        ("a.avi", {"audio_codec": "mp2"}, "AVI"),
        ("a.mpg", {"audio_codec": "mp2", "video_codec": "mpeg1video"}, "MPEG program stream"),
        ("a.ts", {}, "MPEG transport stream"),
        ("a.flv", {"video_codec": "flv"}, "Flash video"),
        ("a.wav", {"audio_codec": "pcm_s16le", "video_codec": None}, "WAV"),
        ("a.aiff", {"audio_codec": "pcm_s16be", "video_codec": None}, "AIFF"),
        ("a.flac", {"audio_codec": "flac", "video_codec": None}, "FLAC"),
        ("a.ogg", {"audio_codec": "libopus", "video_codec": None}, "Ogg"),
        ("a.mp3", {"audio_codec": "libmp3lame", "video_codec": None}, "MP3"),
        ("a.aac", {"video_codec": None}, "MP3 or AAC"),
        ("a.m4a", {"video_codec": None}, "MP4 or QuickTime"),
    ],
)
def test_each_container_is_known_by_its_first_bytes(
    tmp_path: Path, name: str, codecs: dict[str, str | None], kind: str
) -> None:
    video = codecs.get("video_codec", "mpeg4")
    sizes = {"width": 176, "height": 144}
    pictures = None if video is None else [square(i, **sizes) for i in range(5)]
    chosen = {"audio_codec": codecs.get("audio_codec", "aac"), "video_codec": video or "mpeg4"}
    rate = 44100 if name.endswith((".flv", ".mpg", ".avi", ".mp3")) else 48000
    path = write_clip(tmp_path / name, audio=tone(0.3, rate), rate=rate, pictures=pictures, **chosen)  # type: ignore[arg-type]
    assert media_kind(path.read_bytes()[:HEAD]) == kind


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 1234 RTP/AVP 96\n",
        b'<?xml version="1.0"?><MPD></MPD>',
        b"\x7fELF\x02\x01\x01",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"root:x:0:0:root:/root:/bin/bash\n" * 20,
        b"\x80\x04\x95",
        b"PK\x03\x04",
    ],
)
def test_playlists_pictures_and_other_files_are_none(head: bytes) -> None:
    assert media_kind(head) is None
