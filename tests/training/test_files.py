from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from equipoise.training.files import plain, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"t\.json is not JSON \(.*\)\. Delete it"),
        ("\xff", r"t\.json is not JSON"),
        ("[1]", r"t\.json should hold a JSON object"),
        ("{}", r"t\.json should hold a JSON object"),
    ],
)
def test_json_that_is_broken_is_one_line_with_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as error:
        read_json(tmp_path / "t.json")
    assert "\n" not in str(error.value)


def test_plain_values_are_json_and_come_back(tmp_path: Path) -> None:
    content = {1: ("a", math.inf), "b": [{"c": -math.inf}, True, None, 0.1]}
    text = json.dumps(plain(content), allow_nan=False)
    (tmp_path / "t.json").write_text(text)
    assert read_json(tmp_path / "t.json") == {"1": ["a", None], "b": [{"c": None}, True, None, 0.1]}
