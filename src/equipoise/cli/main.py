"""The command `equipoise`: find the subcommand, run it, and turn bad input into one line and exit code 2."""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from equipoise.cli.arguments import Parser, nearest, reject_unknown, split_overrides
from equipoise.cli.process import (
    INTERRUPTED,
    TERMINATED,
    Stopped,
    open_streams,
    settle_output,
    short_warnings,
    stopping,
)

COMMANDS = {
    "demo": "train a plain and a balanced model on built-in synthetic data and compare them",
    "train": "train a model on a dataset, for one seed or several",
    "evaluate": "score a finished run on a split, with or without some modalities",
    "compare": "train methods, models and datasets over seeds, and compare them",
    "reproduce": "run a table or figure of a paper, with the published figures beside",
    "diagnose": "audit a finished run: what does each modality do in it?",
    "robustness": "score finished runs on missing modalities, missing frames and noise",
    "export": "save a trained model with its model card, ready to publish",
    "extract": "turn a folder of clips and a label file into a dataset",
    "predict": "score clips with a saved model",
    "serve": "a page and a JSON API that score clips",
    "data": "import, generate, describe, verify and split datasets",
    "list": "names of presets, models, balancers, metrics, dataset formats, shapes and extractors",
}
CONFIGURED = ("train", "compare", "reproduce", "extract")  # they take dotted flags: settings of configs, of extractors
BAD_INPUT = 2
PREFIX = "equipoise: "
HINTS = {
    errno.EEXIST: "is there already and is no directory",
    errno.ENOSPC: "no space left on the disk; make room and run the same command again",
    errno.EDQUOT: "the disk quota is used up; make room and run the same command again",
}
WORKBENCH = frozenset(
    {
        *("accelerate", "h5py", "huggingface_hub", "matplotlib", "numpy", "pydantic", "rich"),
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
    traced = "--traceback" in arguments
    arguments = [word for word in arguments if word != "--traceback"]
    open_streams()
    try:
        with short_warnings(PREFIX), stopping(f"{PREFIX}stopped.", last=argv is None):
            return _finish(arguments)
    except KeyboardInterrupt as stop:
        return _fail(_stopped(arguments), TERMINATED if isinstance(stop, Stopped) else INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone (`| head`); nothing is left to say
        settle_output()
        return 0
    except ModuleNotFoundError as error:
        if error.name is None:  # an error of ours, which says what to install
            return _fail(str(error), BAD_INPUT, traced)
        if (error.name or "").partition(".")[0] not in WORKBENCH:
            raise
        return _fail('the command line needs the workbench: pip install "equipoise[workbench]"', BAD_INPUT, traced)
    except (ValueError, OSError) as error:
        settle_output()
        return _fail(_one_line(error), BAD_INPUT, traced)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return _fail(
            "out of memory. Lower `train.batch_size`, the model's sizes or `text.max_tokens`.", BAD_INPUT, traced
        )


def _finish(arguments: list[str]) -> int:
    try:
        code = _dispatch(arguments)
    except SystemExit as stop:  # argparse leaves this way after --help
        code = stop.code if isinstance(stop.code, int) else 0
    sys.stdout.flush()  # here, where a pipe that is closed or a disk that is full can still be told
    return code


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
    if command in CONFIGURED:
        arguments, overrides = split_overrides(arguments)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        reject_unknown(unknown, subparsers.choices[command])
    if command in CONFIGURED:
        args.overrides = overrides
    code: int = module.run(args)
    return code


def _help() -> str:
    lines = [f"  {name:<12}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: equipoise COMMAND ...   (`equipoise COMMAND --help` explains one)",
            "       equipoise --version",
            "       equipoise COMMAND ... --traceback   (shows where an error came from)",
            "",
            "Balanced multimodal learning: train, measure, compare.",
            "",
            *lines,
        ]
    )


def _fail(message: str, code: int, traced: bool = False) -> int:
    if traced:
        traceback.print_exc()
    print(f"{PREFIX}{message}", file=sys.stderr)
    return code


def _stopped(arguments: Sequence[str]) -> str:
    kept = arguments[:1] == ["predict"] and "--to" in arguments
    if kept or arguments[:1] in (["compare"], ["reproduce"], ["extract"]):
        return "stopped. The same command goes on where it was."
    if arguments[:1] != ["train"]:
        return "stopped."
    again = "without --no-resume " if "--no-resume" in arguments else ""
    return f"stopped. The same command {again}resumes the run."


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = error.filename if error.filename2 is None else error.filename2
        reason = HINTS.get(error.errno or 0, error.strerror[:1].lower() + error.strerror[1:])
        return f"{reason}." if where is None else f"{where}: {reason}."
    details = getattr(error, "errors", None)  # pydantic's ValidationError, without importing pydantic
    if callable(details):
        return "; ".join(f"`{'.'.join(map(str, item['loc']))}`: {item['msg']}" for item in details())
    return " ".join(str(error).split()) or type(error).__name__


def _out_of_memory(error: Exception) -> bool:
    # PyTorch has a class of its own for a GPU that is full, and none for the CPU.
    names = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return names or "DefaultCPUAllocator: can't allocate memory" in str(error)
