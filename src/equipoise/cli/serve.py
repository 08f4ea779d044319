"""`equipoise serve`: a page and a JSON API that score clips."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import add_models_flag

if TYPE_CHECKING:
    from equipoise.serve.service import Service

TOKEN = "EQUIPOISE_TOKEN"
_EXTRA = frozenset({"av", "cv2", "fastapi", "prometheus_client", "python_multipart", "starlette", "uvicorn"})

EXAMPLES = f"""\
examples:
  equipoise serve models/mosi-ags
  equipoise serve models/mosi-ags --port 9000 --max-seconds 120 --workers 4
  {TOKEN}=... equipoise serve models/mosi-ags --host 0.0.0.0

A page at /, the API at /api/, its description at /openapi.json, /health and /metrics. Beyond this machine (`--host`)
requests need a token: that of the environment variable {TOKEN}, else one that is made up and printed."""

_LIMITS: dict[str, tuple[str, str, str]] = {
    "max_mb": ("upload_mb", "MB", "largest upload"),
    "max_seconds": ("clip_seconds", "S", "longest clip that is scored"),
    "queue": ("queue", "N", "clips that may wait"),
    "workers": ("workers", "N", "clips that are decoded at once"),
    "timeout": ("worker_seconds", "S", "longest decoding of a clip"),
    "memory_mb": ("worker_mb", "MB", "most memory for decoding a clip"),
    "rate": ("rate", "N", "most uploads a minute from one address; 0 for no bound"),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    from equipoise.serve.limits import Limits

    usual = {field.name: field.default for field in fields(Limits)}
    parser = subparsers.add_parser(
        "serve",
        help="a page and a JSON API that score clips",
        epilog=EXAMPLES,
        description="Serve a saved model: a page where a clip is dropped or recorded, and a JSON API.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="what `equipoise export` wrote, or a hub name")
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help="where to listen (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port (8000); 0 for any that is free")
    parser.add_argument("--token", metavar="TOKEN", help=f"what requests have to bring; better in {TOKEN}")
    parser.add_argument(
        "--scratch", metavar="DIR", help="where uploads lie until decoded (the system's temporary folder)"
    )
    add_models_flag(parser)
    for flag, (name, unit, text) in _LIMITS.items():
        kind = int if unit in ("N", "MB") else float
        parser.add_argument(f"--{flag.replace('_', '-')}", type=kind, metavar=unit, help=f"{text} ({usual[name]:g})")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    given = os.environ.pop(TOKEN, "")  # gone before a process that decodes could inherit it
    try:
        from equipoise.scoring.score import Scorer
        from equipoise.serve.access import is_loopback
        from equipoise.serve.limits import Limits
        from equipoise.serve.server import listen, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise ValueError('serving needs an extra: pip install "equipoise[serve]"') from None
    if not 0 <= args.port < 65536:
        raise ValueError(f"Parameter `port` should be in 0 to 65535. Found `port = {args.port}`.")
    limits = Limits(**_limits(args))
    loopback = is_loopback(args.host)
    token = args.token or given or (None if loopback else secrets.token_urlsafe(24))
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("The token should be printable ASCII without spaces.")
    with listen(args.host, args.port) as listener:
        scorer = Scorer(args.model)
        print(
            f"equipoise: {args.model}, {', '.join(scorer.info.modalities)}; loading what decodes ...", file=sys.stderr
        )

        def ready(service: Service, stop: Callable[[], None]) -> None:
            _greet(listener.getsockname(), args.host, token, made_up=token not in (args.token, given, None))
            for what, holds in service.confined.items():
                if not holds:
                    print(f"equipoise: warning: {_MISSING[what]}", file=sys.stderr)
            if service.deaf:
                print(f"equipoise: warning: clips without their words fail: {service.deaf}", file=sys.stderr)

        serve(
            scorer,
            listener,
            limits=limits,
            token=token,
            loopback=loopback,
            scratch=args.scratch,
            models=args.models,
            ready=ready,
        )
    return 0


_MISSING = {
    "limits": "clips are decoded without limits on memory and time.",
    "files": "this system has no Landlock: a decoder that a clip has taken over could read and write files.",
    "calls": "this system has no seccomp filter: a decoder that a clip has taken over could use the network.",
}


def _limits(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(args, flag) for flag, (name, _, _) in _LIMITS.items()}
    return {name: value for name, value in given.items() if value is not None}


def _greet(address: tuple[Any, ...], host: str, token: str | None, *, made_up: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    page = f"http://{shown}:{address[1]}/"
    print(f"equipoise: {page}" + (f"#token={token}" if made_up else ""), flush=True)
