"""Where the runs of a grid run: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs``, ``--engine`` and ``--address``."""
    parser.add_argument("--jobs", type=int, metavar="N", help="processes at once (one a core; 1 on a GPU)")
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help="what runs them (local)")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster (one is started on this machine)")


def jobs_of(args: argparse.Namespace) -> int:
    """How many runs there are at once: what is asked for, or what this machine or the cluster has.

    Raises:
        ValueError: fewer than one, an address without Ray, or Ray is not installed.
        OSError: no cluster answers at the address.
    """
    if args.address is not None and args.engine != "ray":
        raise ValueError("Parameter `--address` is that of a Ray cluster. Add `--engine ray`.")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"Parameter `--jobs` should be 1 or more. Found {args.jobs}.")
    if args.jobs is not None:
        return int(args.jobs)
    if args.address is not None and not args.dry_run:
        from equipoise.experiments.ray_engine import cluster_jobs

        return cluster_jobs(args.address)
    return default_jobs()


def default_jobs() -> int:
    """One process a core; one on a GPU, which they would share."""
    import torch

    return 1 if torch.accelerator.is_available() else len(os.sched_getaffinity(0))


@contextmanager
def engine_held(args: argparse.Namespace, jobs: int) -> Iterator[None]:
    """One connection to the cluster for all that runs inside; nothing for the local engine.

    Nothing may be printed inside: Ray writes the log of a node that is lost to standard output, which is for results.
    """
    if args.engine == "local":
        yield
        return
    from equipoise.experiments.ray_engine import connected

    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), connected(jobs, args.address):
        yield
