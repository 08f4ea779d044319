"""Published checksums are verified and named."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from equipoise.data import checksums
from equipoise.data.checksums import KNOWN, identify


def test_the_published_table_holds_what_was_published() -> None:
    assert KNOWN["78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524"] == ("MOSI", "unaligned_50")
    assert KNOWN["d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9"] == ("MOSI", "aligned_50")
    assert KNOWN["ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f"] == ("MOSEI", "unaligned_50")
    assert KNOWN["45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791"] == ("MOSEI", "aligned_50")
    assert KNOWN["c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f"] == ("CH-SIMS", "unaligned_39")
    assert len(KNOWN) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in KNOWN)


def test_a_published_file_is_named_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The published files are hundreds of megabytes: a small one takes the place of one in the table.
    content = b"features" * 300_000
    monkeypatch.setitem(checksums.KNOWN, hashlib.sha256(content).hexdigest(), ("MOSI", "unaligned_50"))
    (tmp_path / "renamed.pkl").write_bytes(content)
    found = identify(tmp_path / "renamed.pkl")
    assert found.published == "MOSI unaligned_50 (published)"
    assert found.warning is None


@pytest.mark.parametrize(
    ("name", "corpora"),
    [
        ("unaligned_50.pkl", "MOSI unaligned_50, MOSEI unaligned_50"),
        ("mosi_aligned_50.pkl", "MOSI aligned_50, MOSEI aligned_50"),
        ("Unaligned_39.pkl", "CH-SIMS unaligned_39"),
    ],
)
def test_a_file_that_only_bears_a_published_name_is_a_warning(tmp_path: Path, name: str, corpora: str) -> None:
    (tmp_path / name).write_bytes(b"other")
    found = identify(tmp_path / name)
    assert found.published is None
    assert found.sha256 == hashlib.sha256(b"other").hexdigest()
    assert found.warning is not None
    assert f"({corpora})" in found.warning
    assert found.sha256 in found.warning
    assert "\n" not in found.warning


def test_any_other_file_is_neither(tmp_path: Path) -> None:
    (tmp_path / "own.npz").write_bytes(b"other")
    found = identify(tmp_path / "own.npz")
    assert (found.published, found.warning) == (None, None)
