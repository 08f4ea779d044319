"""The command `equipoise`: find the subcommand, run it, and turn bad input into one line and exit code 2."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from equipoise.cli.arguments import Parser, nearest, reject_unknown, split_overrides

COMMANDS = {
    "demo": "train a plain and a balanced model on built-in synthetic data and compare them",
    "train": "train a model on a dataset, for one seed or several",
    "evaluate": "score a finished run on a split, with or without some modalities",
    "data": "import, describe, verify and split datasets",
    "list": "names of models, balancers, metrics and dataset formats",
}
BAD_INPUT = 2
INTERRUPTED = 130
WORKBENCH = frozenset(
    {
        *("accelerate", "h5py", "matplotlib", "numpy", "pydantic", "rich"),
        *("safetensors", "tensorboard", "torchmetrics", "transformers", "yaml"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the arguments without the program's name; `None` takes them from the process.

    Returns:
        0 on success, 2 on bad input (one line on stderr), 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except SystemExit as stop:  # argparse leaves this way after --help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        resumes = arguments[:1] == ["train"] and "--no-resume" not in arguments
        return _fail("stopped. The same command resumes the run." if resumes else "stopped.", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone (`| head`); nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in WORKBENCH:
            raise
        return _fail('the command line needs the workbench: pip install "equipoise[workbench]"', BAD_INPUT)
    except (ValueError, OSError) as error:
        return _fail(_one_line(error), BAD_INPUT)


def _dispatch(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in COMMANDS:
        return _run(command, arguments)
    if command in ("--help", "-h"):
        print(_help())
        return 0
    if command == "--version":
        from equipoise import __version__

        print(f"equipoise {__version__}")
        return 0
    kind = "flag" if command.startswith("-") else "command"
    near = nearest(command, ["--help", "--version"] if kind == "flag" else COMMANDS)
    raise ValueError(f"unknown {kind} `{command}`.{near} See `equipoise --help`.")


def _run(command: str, arguments: list[str]) -> int:
    # Only the command that was asked for is imported: help and errors of the others cost nothing.
    module: Any = importlib.import_module(f"equipoise.cli.{command}")
    parser = Parser(prog="equipoise")
    subparsers = parser.add_subparsers(dest="command", parser_class=Parser)
    module.add_parser(subparsers)
    overrides: dict[str, str] = {}
    if command == "train":
        arguments, overrides = split_overrides(arguments)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        reject_unknown(unknown, subparsers.choices[command])
    if command == "train":
        args.overrides = overrides
    code: int = module.run(args)
    return code


def _help() -> str:
    lines = [f"  {name:<10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: equipoise COMMAND ...   (`equipoise COMMAND --help` explains one)",
            "       equipoise --version",
            "",
            "Balanced multimodal learning: train, measure, compare.",
            "",
            *lines,
        ]
    )


def _fail(message: str, code: int) -> int:
    print(f"equipoise: {message}", file=sys.stderr)
    return code


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror.lower()}."
    details = getattr(error, "errors", None)  # pydantic's ValidationError, without importing pydantic
    if callable(details):
        return "; ".join(f"`{'.'.join(map(str, item['loc']))}`: {item['msg']}" for item in details())
    return " ".join(str(error).split()) or type(error).__name__
