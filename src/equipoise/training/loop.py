"""The training loop. It reads top to bottom, and it has no way to see a test split."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.core import Balancer, Batch
from equipoise.data import Loader, Split
from equipoise.data.corruption import drop_parts, rates_of
from equipoise.metrics import better
from equipoise.training.accelerator import Precision, make_accelerator
from equipoise.training.checks import check_rates, check_splits, check_step
from equipoise.training.directions import direction_cosines, due_batches
from equipoise.training.evaluate import Evaluation, evaluate
from equipoise.training.log import RunLog
from equipoise.training.losses import LOSSES, loss_for
from equipoise.training.optimizers import OptimizerName, make_optimizer
from equipoise.training.progress import Progress, restore
from equipoise.training.ranks import copy_from_first_rank, from_first_rank, sum_gradients
from equipoise.training.recorder import Recorder
from equipoise.training.schedule import Scheduler, lr_factor, set_lr
from equipoise.training.seeds import seed_step
from equipoise.training.state import load_state
from equipoise.training.steps import make_step, split_steps
from equipoise.training.teachers import Teachers
from equipoise.training.tracing import Tracer, stages_of

Row = Mapping[str, float | int | None]


@dataclass(frozen=True, slots=True)
class FitResult:
    """How training went; the model itself holds the weights of ``best_epoch``.

    Attributes:
        epochs: epochs trained.
        steps: optimizer steps.
        best_epoch: the epoch (from 1) that validation chose.
        best_row: its row of ``metrics.csv``.
        seconds_per_epoch: training time, validation not counted.
    """

    epochs: int
    steps: int
    best_epoch: int
    best_row: Row
    seconds_per_epoch: float


def fit(
    model: nn.Module,
    *,
    train: Split,
    valid: Split,
    balancer: Balancer | None = None,
    teachers: Teachers | None = None,
    modalities: Sequence[str] | None = None,
    loss: str | None = None,
    unimodal_weight: float = 0.0,
    epochs: int = 20,
    batch_size: int = 32,
    accumulate: int = 1,
    optimizer: OptimizerName = "adamw",
    lr: float = 1e-3,
    own_lr: Sequence[tuple[nn.Module, float]] = (),
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    scheduler: Scheduler = "none",
    warmup: float = 0.0,
    clip: float | None = 1.0,
    precision: Precision = "no",
    drop_modalities: float | Mapping[str, float] = 0.0,
    drop_frames: float | Mapping[str, float] = 0.0,
    select: str | None = None,
    patience: int | None = None,
    workers: int = 0,
    seed: int = 0,
    run_dir: str | Path | None = None,
    resume: bool = True,
    checkpoint_every: int | None = None,
    trace_every: int = 10,
    direction_every: int = 500,
    progress: Callable[[int, int, Row | None], None] | None = None,
    observer: Callable[[int, nn.Module], object] | None = None,
) -> FitResult:
    """Train a model, choose its epoch on validation data, and leave it with that epoch's weights.

    Each optimizer step: forward, loss, balancer, backward (for each micro-batch) → exchange between ranks → unscale →
    in some steps, record gradient norms → ``balancer.modulate()`` → clip → step. Each epoch: ``balancer.end_epoch`` →
    validation → directions → tables → checkpoint. A step's randomness depends on ``seed``, the step and the rank alone,
    and learning rates on the step alone, so that a run which was killed and started again ends bit by bit as if it had
    not been (on one kind of machine, with the same number of threads).

    Args:
        model: exposes ``encode``, ``fuse`` and ``modalities``.
        train: what it learns from.
        valid: what chooses the epoch.
        balancer: None for the plain model.
        teachers: what fills ``Step.teacher``, for a balancer that reads it.
        modalities: those to use; None for all of the data.
        loss: ``"l1"``, ``"mse"`` or ``"cross_entropy"``; None for the task's default (l1, cross_entropy).
        unimodal_weight: adds each modality's own loss with this weight (the plain multi-loss).
        epochs: at most.
        batch_size: samples of a micro-batch, all ranks together.
        accumulate: micro-batches in an optimizer step.
        optimizer: ``"adamw"``, ``"adam"`` or ``"sgd"``.
        lr: learning rate.
        own_lr: modules with a learning rate of their own, such as a text encoder.
        weight_decay: see `make_optimizer`.
        momentum: for ``"sgd"``.
        scheduler: ``"none"``, ``"linear"`` or ``"cosine"``.
        warmup: share of all steps over which the learning rate rises.
        clip: largest global gradient norm; None for no clipping.
        precision: ``"no"``, ``"bf16"`` or ``"fp16"`` (GPU).
        drop_modalities: the rate, or the rates by modality, at which training samples lose whole modalities: drawn
            anew each epoch, for each modality by itself, never all that a sample has. Splits that are scored, or that a
            balancer walks after an epoch, stay whole.
        drop_frames: the same for single frames; one of each sequence stays, and the special tokens of a text.
        select: the validation metric that chooses; None for ``"mae"`` or ``"accuracy"``. The lower loss breaks ties.
            ``"last"`` chooses nothing and keeps the last epoch, where validation data are too few to choose by.
        patience: stop after so many epochs without a better one.
        workers: processes that read batches.
        seed: of the order of samples, dropout and noise. Initial weights are the caller's.
        run_dir: where tables and checkpoints go; None keeps nothing.
        resume: go on from the latest checkpoint in ``run_dir``.
        checkpoint_every: optimizer steps between checkpoints inside an epoch, beside the one at its end. 0 writes none
            before training ends: for runs so short that starting anew costs less.
        trace_every: optimizer steps between records of what `Tracer` reads: gradient norms of every stage the model
            names, before and after the balancer. The first step of an epoch is always read. 0 for none.
        direction_every: micro-batches trained for each that is spent, after an epoch, on `direction_cosines`. 0 for
            none. Neither changes what is learnt.
        progress: called with (steps done, steps in all, the epoch's row or None) after each step and each epoch.
        observer: called with (epoch, model) after each validation, on the first rank; what it returns is ignored.

    Raises:
        ValueError: a parameter that does not fit, a test split, a loss that is no longer finite.
        OSError: a checkpoint or a table can't be written; what was written before is intact.
    """
    check_splits(train, valid)
    check_rates(drop_modalities, drop_frames, train.modalities)
    accelerator = make_accelerator(precision)
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    names = tuple(modalities or train.modalities)
    task = train.manifest.task
    loss = loss_for(task, loss)
    select = select or ("accuracy" if task == "classification" else "mae")

    loader = Loader(
        train, batch_size, shuffle=True, seed=seed, rank=rank, world=world, workers=workers, modalities=names
    )
    sizes = loader.global_batch_sizes()
    steps = math.ceil(len(loader) / accumulate) * epochs
    gone, thinned = rates_of(drop_modalities, names), rates_of(drop_frames, names)
    model.to(device)
    copy_from_first_rank(model, world)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optim = accelerator.prepare(
        make_optimizer(model, optimizer, lr=lr, weight_decay=weight_decay, momentum=momentum, own_lr=own_lr)
    )
    # Accelerate's own step scales losses; without a scaler it only looks, each time, for packages that it could serve.
    stepped = optim if accelerator.scaler is not None else optim.optimizer
    net: Any = model
    stages = stages_of(net) if len(names) > 1 else {}
    groups = stages.get("encoders")
    tracer = Tracer(stages, balancer, trace_every)
    if balancer is not None:
        balancer.to(device).attach(optim.optimizer)
    needs = balancer.needs if balancer is not None else frozenset[str]()
    if "teacher" in needs and teachers is None:
        raise ValueError(
            f"{type(balancer).__name__} needs teachers. Found none. Pass `teachers=Teachers(...)`, a model for each "
            "modality that was trained on it alone, or `teachers: {MODALITY: RUN_DIR, ...}` beside the balancer's name "
            "in a config."
        )
    if teachers is not None:
        teachers.to(device)
    run_step = partial(
        make_step, net, criterion=LOSSES[loss], needs=needs, teachers=teachers, autocast=accelerator.autocast
    )
    score = partial(evaluate, model, valid, modalities=names, loss=loss, autocast=accelerator.autocast, quiet=True)
    walk = partial(
        split_steps,
        net,
        criterion=LOSSES[loss],
        modalities=names,
        batch_size=batch_size,
        needs=needs,
        device=device,
        teachers=teachers,
        autocast=accelerator.autocast,
    )
    directions = partial(
        direction_cosines,
        net,
        train,
        criterion=LOSSES[loss],
        modalities=names,
        batch_size=batch_size,
        device=device,
        seed=seed,
        autocast=accelerator.autocast,
    )

    model.eval()
    with torch.no_grad():
        few = valid.batch(range(min(len(valid), 4)), names).to(device)
        step = run_step(few, unimodal_weight=unimodal_weight)
        check_step(step, valid, select=select, model=model, balancer=balancer)
    sign = 1.0 if select == "last" or better(select) == "max" else -1.0

    folder = None if run_dir is None else Path(run_dir)
    state, best = Progress(), dict[str, Tensor]()
    if folder is not None and resume:
        state, best = restore(
            folder / "checkpoint", model=model, optimizer=optim.optimizer, balancer=balancer, scaler=accelerator.scaler
        )
    elif folder is not None and rank == 0:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    recorder = Recorder(balancer, world, state.totals, tracer.columns())
    log = None
    if folder is not None and rank == 0 and not state.done:
        log = RunLog(folder, sizes=state.sizes)

    def checkpoint() -> None:
        if log is None or folder is None:
            return
        state.totals, state.sizes = recorder.totals, log.sizes()
        state.scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        state.save(folder / "checkpoint", model=model, best=best, optimizer=optim.optimizer, balancer=balancer)

    def flush() -> None:
        rows = recorder.flush()
        if log is not None:
            log.steps(rows)

    for epoch in range(state.epoch, 0 if state.done else epochs):
        if patience is not None and epoch - state.best_epoch >= patience:
            break
        started = time.perf_counter() - state.seconds
        model.train()
        for batches in _grouped(loader.epoch(epoch, start=state.batch), accumulate):
            seed_step(seed, state.step, rank)
            factor = lr_factor(state.step, steps, scheduler, warmup)
            set_lr(optim, factor)
            rows = sum(sizes[state.batch : state.batch + len(batches)])
            mean = torch.zeros((), device=device)
            for whole in batches:
                batch = drop_parts(whole, gone, thinned, seed=seed, draw=epoch)
                step = run_step(batch.to(device, non_blocking=True), unimodal_weight=unimodal_weight)
                balanced = step.loss if balancer is None else balancer(step)
                # Shares of all micro-batches and ranks add up to the mean over the step's samples.
                share = len(batch) / rows
                accelerator.backward(balanced * share)
                mean += step.loss.detach() * share
            sum_gradients(parameters, world)
            accelerator.unscale_gradients(optim)
            traced = tracer.before() if tracer.due(state.batch // accumulate) else None
            if balancer is not None:
                balancer.modulate()
            if traced is not None:
                traced |= tracer.after()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            stepped.step()
            stepped.zero_grad()
            state.step += 1
            state.batch += len(batches)
            recorder.record(step=state.step, epoch=epoch + 1, lr=lr * factor, rows=rows, loss=mean, traced=traced)
            if progress is not None:
                progress(state.step, steps, None)
            if checkpoint_every and state.step % checkpoint_every == 0 and state.batch < len(loader):
                flush()
                state.seconds = time.perf_counter() - started
                checkpoint()
        flush()
        seconds = time.perf_counter() - started

        model.eval()
        if balancer is not None:
            with torch.no_grad():
                balancer.end_epoch(train=walk(train), val=walk(valid))
        found = score()
        row = {"epoch": epoch + 1, "step": state.step, **_row(found, recorder.means())}
        if groups and direction_every:
            cosines = dict[str, float | None].fromkeys(groups)
            if spent := due_batches(epoch, len(loader), direction_every):
                cosines = directions(groups=groups, batches=spent)
            row |= {f"direction/{name}": cosine for name, cosine in cosines.items()}
        chosen_by = epoch if select == "last" else found.metrics[select]
        ranked = from_first_rank([_rank(sign * chosen_by), _rank(-found.loss)], device, world)
        if not state.best_score or ranked > state.best_score:
            state.best_epoch, state.best_score, state.best_row = epoch + 1, ranked, row
            best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        state.epoch, state.batch, state.seconds, state.all_seconds = epoch + 1, 0, 0.0, state.all_seconds + seconds
        if observer is not None and rank == 0:
            with torch.no_grad():
                observer(epoch + 1, model)
        if log is not None:
            log.epoch(row, seconds)
        if progress is not None:
            progress(state.step, steps, row)
        if checkpoint_every != 0:
            checkpoint()

    if log is not None and folder is not None:
        state.save_final(folder / "checkpoint", best)
    load_state(model, best)
    model.eval()
    return FitResult(state.epoch, state.step, state.best_epoch, state.best_row, state.all_seconds / max(state.epoch, 1))


def _grouped(batches: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    while group := list(islice(batches, count)):
        yield group


def _row(found: Evaluation, means: Mapping[str, float | None]) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"train_loss": means["train_loss"], "valid_loss": found.loss}
    row |= {f"valid/{name}": value for name, value in found.metrics.items()}
    for modality, metrics in found.modalities.items():
        row |= {f"valid/{modality}/{name}": value for name, value in metrics.items()}
    return row | {name: value for name, value in means.items() if name != "train_loss"}


def _rank(value: float) -> float:
    return -math.inf if math.isnan(value) else value
