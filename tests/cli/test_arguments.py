from __future__ import annotations

import argparse

import pytest

from equipoise.cli.arguments import Parser, nearest, reject_unknown, split_overrides


@pytest.mark.parametrize(
    ("arguments", "kept", "overrides"),
    [
        (["train"], ["train"], {}),
        (["train", "--model.hidden", "64", "run.yaml"], ["train", "run.yaml"], {"model.hidden": "64"}),
        (["train", "run.yaml", "--model.hidden=64"], ["train", "run.yaml"], {"model.hidden": "64"}),
        (["train", "--balancer.alpha", "-1"], ["train"], {"balancer.alpha": "-1"}),
        (["train", "--model.masked", "--out", "x"], ["train", "--out", "x"], {"model.masked": "true"}),
        (["train", "--model.masked"], ["train"], {"model.masked": "true"}),
        (["train", "--train.lr", "1", "--train.lr=2"], ["train"], {"train.lr": "2"}),
        (["train", "--data=a.b", "--out", "run.1"], ["train", "--data=a.b", "--out", "run.1"], {}),
        (["train", "--text.encoder="], ["train"], {"text.encoder": ""}),
    ],
)
def test_dotted_flags_are_settings_wherever_they_stand(
    arguments: list[str], kept: list[str], overrides: dict[str, str]
) -> None:
    assert split_overrides(arguments) == (kept, overrides)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("trian", " Did you mean `train`?"), ("LIST", " Did you mean `list`?"), ("xyz", ""), ("", "")],
)
def test_nearest(word: str, hint: str) -> None:
    assert nearest(word, ["train", "list"]) == hint


def test_a_wrong_choice_names_the_nearest() -> None:
    parser = Parser(prog="equipoise list")
    parser.add_argument("kind", choices=["models", "balancers"])
    with pytest.raises(ValueError) as info:
        parser.parse_args(["modles"])
    told = "unknown `modles`. Did you mean `models`? Valid: models, balancers. See `equipoise list --help`."
    assert str(info.value) == told


def test_flags_are_never_abbreviated() -> None:
    parser = Parser(prog="p")
    parser.add_argument("--json", action="store_true")
    args, unknown = parser.parse_known_args(["--js"])
    assert (args, unknown) == (argparse.Namespace(json=False), ["--js"])
    with pytest.raises(ValueError, match=r"unknown flag `--js`\. Did you mean `--json`\? See `p --help`\."):
        reject_unknown(unknown, parser)


def test_an_unknown_flag_of_a_subcommand_is_found_among_its_own() -> None:
    parser = Parser(prog="p")
    inner = parser.add_subparsers(dest="action").add_parser("split")
    inner.add_argument("--speakers")
    with pytest.raises(ValueError, match="Did you mean `--speakers`"):
        reject_unknown(["--speaker", "x"], parser)
