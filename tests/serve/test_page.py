"""The page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.clips import square, voice, write_clip
from tests.serve.browser import Page, find_chromium, open_browser
from tests.serve.running import Running, running

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def shown(page: Page, element: str) -> str:
    return str(page.run(f"document.getElementById('{element}').textContent"))


def visible(page: Page, element: str) -> bool:
    return bool(page.run(f"document.getElementById('{element}').checkVisibility()"))


def write(page: Page, element: str, text: str) -> None:
    place = f"document.getElementById('{element}')"
    page.run(f"{place}.value = {json.dumps(text)}; {place}.dispatchEvent(new Event('input'))")


def click(page: Page, element: str) -> None:
    page.run(f"document.getElementById('{element}').click()")


def words(page: Page) -> list[str]:
    return list(page.run("[...document.querySelectorAll('.word')].map((word) => word.textContent)"))


def start(page: Page, server: Running, width: int = 1280) -> None:
    page.errors.clear()
    page.resize(width, 900)
    page.open(server.address)
    page.until("document.getElementById('bounds').textContent !== ''")


def finish(page: Page) -> None:
    seen = "document.getElementById('result').checkVisibility()"
    page.until(f"{seen} || document.getElementById('problem').textContent", 60)


@pytest.mark.parametrize("width", [1280, 360])
def test_a_clip_is_sent_and_its_score_shown(page: Page, server: Running, tmp_path: Path, width: int) -> None:
    clip = write_clip(
        tmp_path / "talk.webm",
        audio=voice(3.0, 48000),
        rate=48000,
        pictures=[square(i) for i in range(75)],
        audio_codec="libopus",
        video_codec="libvpx",
    )
    start(page, server, width)
    assert page.run("document.getElementById('send').disabled")
    page.choose("#file", clip)
    write(page, "text", "a very good film")
    page.until("!document.getElementById('send').disabled")
    click(page, "send")
    finish(page)
    assert shown(page, "problem") == ""
    assert page.run("document.activeElement.id") == "result-title"
    score = page.run("document.querySelector('#said-score .value').textContent")
    assert page.run("document.querySelector('#said-score svg').getAttribute('aria-label')").endswith(f": {score}")
    bars = page.run("document.querySelector('#contributions svg').getAttribute('aria-label')")
    assert bars.startswith("What each modality adds: text ")
    assert "audio" in bars
    assert words(page) == ["a", "very", "good", "film"]
    page.until("document.getElementById('player').readyState >= 2")  # the browser plays it
    assert page.run("document.querySelectorAll('#timeline circle').length") >= 2  # 0 to 2 s, 1 to 3 s, ...
    page.run(
        "const box = document.querySelector('#timeline svg').getBoundingClientRect();"
        "document.querySelector('#timeline svg').dispatchEvent(new MouseEvent('click',"
        "{clientX: box.left + box.width * 590 / 600, clientY: box.top + 5, bubbles: true}))"
    )
    page.until("document.getElementById('player').currentTime > 2.5")
    assert page.run("document.documentElement.scrollWidth") <= width  # nothing to scroll sideways
    assert page.errors == []


def test_what_the_browser_can_not_play_is_scored_all_the_same(page: Page, server: Running, tmp_path: Path) -> None:
    pictures = [square(i, width=176, height=144) for i in range(50)]
    clip = write_clip(
        tmp_path / "old.mpg",
        audio=voice(2.0, 44100),
        rate=44100,
        pictures=pictures,
        audio_codec="mp2",
        video_codec="mpeg1video",
    )
    start(page, server)
    page.choose("#file", clip)
    page.until("!document.getElementById('send').disabled")
    click(page, "send")
    finish(page)
    page.until("document.getElementById('unplayable').checkVisibility()")
    assert not visible(page, "player")
    assert "text is not used: no transcript" in shown(page, "missing")
    assert page.errors == []


def test_a_text_alone(page: Page, server: Running) -> None:
    start(page, server)
    write(page, "text", "<b>good</b> film")
    click(page, "send")
    finish(page)
    assert words(page) == ["<b>good</b>", "film"]
    assert not visible(page, "media")
    assert page.errors == []


def test_a_bad_file_is_told_in_one_line_and_the_next_one_works(page: Page, server: Running, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(2000))
    start(page, server)
    page.choose("#file", bad)
    page.until("!document.getElementById('send').disabled")
    click(page, "send")
    finish(page)
    assert "This clip can't be scored" in shown(page, "problem")
    assert not visible(page, "result")
    write(page, "text", "good")
    page.choose("#file", write_clip(tmp_path / "a.wav", audio=voice(1.0), audio_codec="pcm_s16le"))
    click(page, "send")
    page.until("document.getElementById('result').checkVisibility()")
    assert shown(page, "problem") == ""
    assert page.errors == []


def test_a_recording_is_scored(page: Page, server: Running) -> None:
    start(page, server)
    click(page, "record-audio")
    page.until("document.getElementById('studio').checkVisibility()")
    page.until("parseInt(document.getElementById('record-time').textContent) >= 2")
    click(page, "record-stop")
    page.until("!document.getElementById('send').disabled")
    assert shown(page, "chosen").startswith("recording.webm, ")
    click(page, "send")
    finish(page)
    assert shown(page, "problem") == ""
    assert "audio" in page.run("document.querySelector('#contributions svg').getAttribute('aria-label')")
    assert page.errors == []


def test_the_token_is_asked_for_or_taken_from_the_address(page: Page, model: Path, tmp_path: Path) -> None:
    with running(model, tmp_path / "scratch", token="secret") as server:
        page.open(server.address)
        page.until("document.getElementById('token').checkVisibility()")
        write(page, "token-value", "wrong")
        page.run("document.getElementById('token').requestSubmit()")
        write(page, "token-value", "secret")
        page.run("document.getElementById('token').requestSubmit()")
        page.until("document.getElementById('bounds').textContent !== ''")
        page.run("sessionStorage.clear()")
        page.open("about:blank")
        page.open(f"{server.address}/#token=secret")
        page.until("document.getElementById('bounds').textContent !== ''")
        assert page.run("location.hash") == ""
        page.run("sessionStorage.clear()")
