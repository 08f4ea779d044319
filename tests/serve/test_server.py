"""A real server on loopback, asked over the network."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.features.clips import square, tone, voice, write_clip
from tests.serve.running import Running, running

from equipoise.extraction.clip_features import extract_clip
from equipoise.scoring.score import Scorer
from equipoise.serve.limits import Limits


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    return write_clip(folder / "hello é.wav", audio=voice(3.0), audio_codec="pcm_s16le")


def post(client: httpx.Client, clip: Path, wait: float = 30.0, **fields: str) -> httpx.Response:
    return client.post(f"/api/clips?wait={wait}", data=fields, files={"clip": (clip.name, clip.read_bytes())})


def error_of(response: httpx.Response) -> tuple[int, str]:
    message = response.json()["error"]["message"]
    assert message
    assert "\n" not in message
    return response.status_code, response.json()["error"]["code"]


def test_a_clip_is_scored_as_without_a_server(server: Running, wave: Path, model: Path) -> None:
    response = post(server.client, wave, text="a good film", words="true")
    assert response.status_code == 200
    answer = response.json()
    scorer = Scorer(model)
    clip = extract_clip(wave, scorer.recipe(), text="a good film", id=wave.name)
    (known,) = scorer.score([clip], words=True)
    assert answer["status"] == "done"
    assert answer["name"] == "hello é.wav"
    assert answer["error"] is None
    assert answer["score"]["values"]["score"] == pytest.approx(known.values["score"], abs=1e-5)
    assert list(answer["score"]["contributions"]) == ["text", "audio"]
    assert [word["text"] for word in answer["score"]["words"]] == ["a", "good", "film"]
    assert answer["score"]["transcript"]["text"] == "a good film"
    assert set(answer["seconds"]) == {"waiting", "decoding", "scoring", "whole"}
    assert server.left() == []


def test_a_timeline_covers_the_clip(server: Running, wave: Path) -> None:
    answer = post(server.client, wave, window="1", hop="0.5").json()
    assert [(piece["start"], piece["end"]) for piece in answer["timeline"]] == [
        (0.5 * i, 0.5 * i + 1) for i in range(5)
    ]
    assert all(piece["missing"] == {"text": "no transcript"} for piece in answer["timeline"])
    assert len({round(piece["values"]["score"], 6) for piece in answer["timeline"]}) > 1
    shifted = post(server.client, wave, window="1", start="1", end="3").json()
    assert [(piece["start"], piece["end"]) for piece in shifted["timeline"]] == [(1, 2), (2, 3)]
    assert (shifted["score"]["start"], shifted["score"]["end"]) == (1, 3)


def test_a_text_alone_and_some_modalities_alone(server: Running, wave: Path) -> None:
    answer = server.client.post("/api/clips?wait=30", files={"text": (None, "a very good film")}).json()
    assert answer["score"]["used"] == ["text"]
    assert answer["score"]["missing"] == {"audio": "not given"}
    answer = post(server.client, wave, only="audio", text="bad").json()
    assert answer["score"]["used"] == ["audio"]
    assert answer["score"]["missing"] == {"text": "left out"}


def test_without_waiting_a_clip_is_asked_for_until_it_is_done_and_then_forgotten(server: Running, wave: Path) -> None:
    response = post(server.client, wave, wait=0)
    assert response.status_code == 202
    where = response.headers["location"]
    assert where == f"/api/clips/{response.json()['id']}"
    seen = {response.json()["status"]}
    while "done" not in seen:
        seen.add(server.client.get(where).json()["status"])
    assert seen <= {"queued", "decoding", "scoring", "done"}
    assert server.client.get(f"{where}?wait=5").json()["score"]["used"] == ["audio"]
    assert server.client.delete(where).status_code == 204
    assert error_of(server.client.get(where)) == (404, "unknown")
    assert error_of(server.client.delete(where)) == (404, "unknown")


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"level": "2"}, "field", "`level`"),
        ({"only": "smell"}, "field", "`only` should name some of text, audio. Found `smell`."),
        ({"only": ","}, "field", "`only`"),
        ({"start": "-1"}, "field", "`start`"),
        ({"start": "nan"}, "field", "`start`"),
        ({"start": "2", "end": "1"}, "field", "`end` should be greater than `start`"),
        ({"hop": "1"}, "field", "`hop` needs `window`"),
        ({"window": "0"}, "field", "`window`"),
        ({"colour": "red"}, "field", "`colour`"),
        ({"words": "perhaps"}, "field", "`words`"),
    ],
)
def test_wrong_fields_are_one_line(
    server: Running, wave: Path, fields: dict[str, str], code: str, message: str
) -> None:
    response = post(server.client, wave, 30.0, **fields)
    assert error_of(response) == (422, code)
    assert message in response.json()["error"]["message"]
    assert server.left() == []


def test_bad_uploads_are_refused_and_leave_nothing(server: Running) -> None:
    def send(content: bytes, name: str = "a.mp4") -> httpx.Response:
        return server.client.post("/api/clips?wait=30", files={"clip": (name, content)})

    assert error_of(send(b"#!/bin/sh\n")) == (415, "not_media")
    assert error_of(send(b"")) == (400, "empty")
    assert error_of(send(b"\x00\x00\x00\x20ftypisom" + bytes(999))) == (422, "media")
    assert error_of(server.client.post("/api/clips", content=b"x")) == (415, "form")
    assert error_of(server.client.post("/api/clips", files={"words": (None, "true")})) == (400, "empty")
    assert error_of(server.client.post("/api/clips", files={"text": (None, " \n")})) == (400, "empty")
    assert error_of(server.client.post("/api/clips?wait=1000", files={"text": (None, "a")})) == (422, "field")
    assert error_of(server.client.get("/api/nothing")) == (404, "http")
    assert error_of(server.client.put("/api/clips")) == (405, "http")
    assert server.left() == []
    assert server.client.get("/health").json()["status"] == "ok"


def test_an_upload_that_breaks_off_leaves_nothing(server: Running) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                f"POST /api/clips HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                '--x\r\nContent-Disposition: form-data; name="clip"; filename="a.wav"\r\n\r\n'.encode()
                + b"RIFF\x24\x00\x00\x00WAVEfmt "
                + bytes(2000)
            )
    deadline = time.monotonic() + 10
    while (server.left() or server.service.waiting) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.left() == []
    assert server.service.waiting == 0


def test_clips_at_the_same_time_are_all_scored_and_some_together(server: Running, wave: Path) -> None:
    before = server.client.get("/metrics").text
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda i: post(server.client, wave, text="good " * (i % 3 + 1)), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    scores = [answer.json()["score"]["values"]["score"] for answer in answers]
    for i, score in enumerate(scores):
        assert score == pytest.approx(scores[i % 3], abs=1e-5)
    after = server.client.get("/metrics").text
    assert counted(after, "equipoise_batch_clips_sum") - counted(before, "equipoise_batch_clips_sum") == 12
    assert server.left() == []


def counted(metrics: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith((f"{name} ", f"{name}{{")))


def test_metrics_count_requests_by_route_not_by_path(server: Running) -> None:
    server.client.get("/api/clips/some-id")
    server.client.get("/some/path")
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'equipoise_requests_total{method="GET",route="/api/clips/{id}",status="404"}' in response.text
    assert 'route="other",status="404"' in response.text
    assert "some-id" not in response.text
    assert "process_resident_memory_bytes" in response.text
    assert counted(response.text, "equipoise_queue_clips") == 0


def test_the_description_has_every_path_and_loads_nothing(server: Running) -> None:
    described: dict[str, Any] = server.client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/api/clips", "/api/clips/{id}", "/api/model", "/health", "/metrics"}
    fields = described["paths"]["/api/clips"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(fields["properties"]) == {"clip", "text", "only", "words", "level", "start", "end", "window", "hop"}
    assert "422" in described["paths"]["/api/clips"]["post"]["responses"]
    assert server.client.get("/docs").status_code == 404
    for name in ("/", "/app.js", "/api.js", "/charts.js", "/recorder.js", "/result.js", "/style.css"):
        response = server.client.get(name)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "//" not in response.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


def test_the_model_and_its_limits_are_told(server: Running) -> None:
    told = server.client.get("/api/model").json()
    assert told["modalities"] == ["text", "audio"]
    assert (told["task"], told["range"], told["reads_text"]) == ("regression", [-3, 3], True)
    assert told["limits"]["upload_bytes"] == 200 * 2**20
    assert server.client.get("/health").json()["confined"]["limits"] is True


def test_other_names_and_other_sites_are_refused(server: Running) -> None:
    client = server.client
    assert error_of(client.get("/api/model", headers={"Host": "evil.example"})) == (421, "host")
    assert client.get("/api/model", headers={"Host": "localhost:1"}).status_code == 200
    text = {"text": (None, "a")}
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        assert error_of(client.post("/api/clips", files=text, headers={"Origin": origin})) == (403, "origin")
    assert client.post("/api/clips", files=text, headers={"Origin": server.address}).status_code == 202


def test_limits_of_rate_queue_size_and_a_token(model: Path, tmp_path: Path, wave: Path) -> None:
    limits = Limits(rate=3, queue=1, workers=1, upload_mb=1)
    with running(model, tmp_path / "scratch", limits, token="secret") as server:
        client = server.client
        assert error_of(client.get("/api/model")) == (401, "token")
        assert error_of(client.get("/metrics")) == (401, "token")
        assert error_of(client.get("/api/model", headers={"Authorization": "Bearer wrong"})) == (401, "token")
        assert client.get("/").status_code == client.get("/health").status_code == 200
        client.headers["Authorization"] = "Bearer secret"
        assert client.get("/api/model").status_code == 200
        assert error_of(client.post("/api/clips", files={"clip": ("a.wav", bytes(2**20))})) == (413, "too_large")
        with server.service.place():  # somebody else's upload is under way
            response = post(client, wave)
            assert error_of(response) == (503, "full")
            assert int(response.headers["retry-after"]) > 0
        assert post(client, wave).status_code == 200
        response = post(client, wave)
        assert error_of(response) == (429, "rate")
        assert 0 < int(response.headers["retry-after"]) <= 21
        assert server.left() == []


def test_a_picture_in_motion_is_decoded_too(server: Running, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", audio=tone(1.0), pictures=[square(i) for i in range(25)])
    assert post(server.client, clip).json()["score"]["used"] == ["audio"]
    silent = write_clip(tmp_path / "b.mp4", pictures=[square(i) for i in range(25)])
    response = post(server.client, silent)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "unscorable"
    assert "no audio" in response.json()["error"]["message"]
