"""Every balancer in the settings that the laws are checked for."""

from __future__ import annotations

from typing import Literal

import torch
from tests.balancers.loop import Setting
from tests.balancers.toy import CLASSES, Toy, data, encoders
from torch import Tensor

from equipoise import (
    AGM,
    AGS,
    ARL,
    CGGM,
    CP,
    DGL,
    IPR,
    MLA,
    MSES,
    MSLR,
    OGMGE,
    PMR,
    SGM,
    SL,
    UME,
    UMT,
    Chain,
    GBlending,
    Greedy,
    InfoReg,
    MMPareto,
    Modalities,
    ReconBoost,
    Relearning,
    Step,
)


def stopped_mses(model: Toy, names: tuple[str, ...]) -> MSES:
    """An MSES that has already stopped "text", whose validation loss rose; epochs are counted from here."""
    balancer = MSES(encoders(model, names), patience=1)
    for error in (1.0, 2.0):
        own = {name: torch.tensor([error if name == "text" else -error]) for name in names}
        step = Step(torch.zeros(()), target=torch.zeros(1), unimodal=own, criterion=lambda x, _: x.mean())
        balancer.end_epoch(val=[step])
    assert balancer.stopped == ("text",)
    balancer.window.epoch = 0
    return balancer


def primed_info_reg(model: Toy, names: tuple[str, ...], ahead: Literal["any", "average"] = "any") -> InfoReg:
    """An InfoReg after two epochs in which every encoder's information grew, and its weights did."""
    balancer = InfoReg(encoders(model, names), ahead=ahead)
    balancer.information.copy_(torch.tensor([[1.0], [2.0]]).expand(2, len(names)))
    for key, value in balancer.named_buffers():
        if key.startswith("before"):
            value.mul_(0.9)
    return balancer


def primed_pmr(model: Toy, names: tuple[str, ...]) -> PMR:
    """A PMR with prototypes, the same for every modality, so that equal modalities are equal to it."""
    balancer = PMR(encoders(model, names), mu=0.1)
    at = next(model.parameters())
    batch = data(len(names), at.dtype)
    inputs = {name: x.to(at.device) for name, x in batch.inputs.items()}
    first = model.encode(inputs)["text"]
    target = batch.target.to(at.device)
    balancer.refresh([Step(first.sum(), first[:, :CLASSES], target, features=dict.fromkeys(names, first))])
    return balancer


def boosted_twice(model: Toy, names: tuple[str, ...]) -> ReconBoost:
    """A ReconBoost in its second stage, where it has a modality to remember; epochs are counted from here."""
    balancer = ReconBoost(encoders(model, names), epochs=1, rectify=0, reconcilement="true_class")
    balancer.window.from_epoch = -1
    return balancer


def stages(model: Toy, names: tuple[str, ...]) -> Chain:
    branches = Modalities(**{name: model.projections[name] for name in names})
    return Chain(AGS(encoders(model, names), alpha=0.5), AGS(branches, alpha=0.25, strategy="average"))


def half_sure(output: Tensor, target: Tensor) -> Tensor:
    """A rule of being right that no two of these modalities meet equally often, as they do in eight largest outputs."""
    return output.softmax(dim=-1).gather(-1, target[:, None])[:, 0] > 0.5


FUSION = ("projections", "out")
RATES = {"text": 0.25, "audio": 1.0, "vision": 1.5, "touch": 0.5, "joint": 0.75}
SETTINGS: dict[str, Setting] = {
    "ags": Setting(lambda m, n: AGS(encoders(m, n), alpha=0.5)),
    "ags-update": Setting(lambda m, n: AGS(encoders(m, n), alpha=0.5, apply_to="update"), update=True),
    "ags-max": Setting(lambda m, n: AGS(encoders(m, n), alpha=0.5, strategy="max"), levels=False),
    "ags-max-update": Setting(
        lambda m, n: AGS(encoders(m, n), alpha=0.5, strategy="max", apply_to="update"), update=True, levels=False
    ),
    "ogm": Setting(lambda m, n: OGMGE(encoders(m, n), alpha=0.5, noise=False)),
    "ogm-update": Setting(lambda m, n: OGMGE(encoders(m, n), alpha=0.5, noise=False, apply_to="update"), update=True),
    "ogm-ge": Setting(lambda m, n: OGMGE(encoders(m, n), alpha=0.5, seed=3), noise=True, levels=False),
    "ogm-ge-update": Setting(
        lambda m, n: OGMGE(encoders(m, n), alpha=0.5, seed=3, apply_to="update"), update=True, noise=True, levels=False
    ),
    "agm": Setting(lambda m, n: AGM(encoders(m, n), alpha=1.0), loss=True, beyond=FUSION, micro=False),
    "agm-subsets": Setting(
        lambda m, n: AGM(encoders(m, n), alpha=1.0), loss=True, beyond=FUSION, micro=False, subsets=True
    ),
    "agm-lag": Setting(lambda m, n: AGM(encoders(m, n), alpha=1.0, lag=True), loss=True, beyond=FUSION),
    "cp": Setting(lambda m, n: CP(encoders(m, n))),
    "cp-update": Setting(lambda m, n: CP(encoders(m, n), tolerance=0.0, apply_to="update"), update=True),
    "cp-loss": Setting(
        lambda m, n: CP(encoders(m, n), mode="loss"), loss=True, beyond=(*FUSION, "heads"), adds=True, micro=False
    ),
    "sl": Setting(lambda m, n: SL(encoders(m, n)), loss=True, beyond=FUSION, adds=True, micro=False, levels=False),
    "chain-sl-cp": Setting(
        lambda m, n: Chain(SL(encoders(m, n)), CP(encoders(m, n), mode="loss"), CP(encoders(m, n))),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        micro=False,
        levels=False,
    ),
    "sgm": Setting(lambda m, n: SGM(encoders(m, n), alpha=0.5, correct=half_sure)),
    "sgm-update": Setting(
        lambda m, n: SGM(encoders(m, n), alpha=0.5, correct=half_sure, apply_to="update"), update=True
    ),
    "sgm-heads": Setting(lambda m, n: SGM(encoders(m, n), alpha=0.5, source="heads")),
    "ipr": Setting(lambda m, n: IPR(encoders(m, n)), levels=False, ends=True),
    "ipr-stronger": Setting(lambda m, n: IPR(encoders(m, n), direction="stronger"), levels=False, ends=True),
    "mses": Setting(stopped_mses, levels=False),
    "mm-pareto": Setting(lambda m, n: MMPareto(encoders(m, n)), loss=True, beyond=("heads",), adds=True, levels=False),
    "dgl": Setting(lambda m, n: DGL(encoders(m, n), alpha=2.0), loss=True, adds=True, levels=False),
    "info-reg": Setting(primed_info_reg, decays=True),
    "info-reg-average": Setting(lambda m, n: primed_info_reg(m, n, "average"), decays=True),
    "g-blending": Setting(
        lambda m, n: GBlending(encoders(m, n), super_epoch=1),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        levels=False,
    ),
    "g-blending-offline": Setting(
        lambda m, n: GBlending(encoders(m, n), weights={name: RATES[name] for name in (*n, "joint")}),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        levels=False,
    ),
    "greedy": Setting(lambda m, n: Greedy(encoders(m, n), steps=2), loss=True, beyond=FUSION, adds=True, waits=True),
    "greedy-fusion": Setting(
        lambda m, n: Greedy(encoders(m, n), steps=1, fusion=Modalities(**{name: m.projections[name] for name in n})),
        loss=True,
        beyond=FUSION,
        adds=True,
        subsets=True,
        waits=True,
    ),
    "mslr": Setting(
        lambda m, n: MSLR(encoders(m, n), rates={name: RATES[name] for name in n}, history=2), update=True, levels=False
    ),
    "mslr-smooth": Setting(
        lambda m, n: MSLR(encoders(m, n), rates={name: RATES[name] for name in n}, strategy="smooth"),
        update=True,
        levels=False,
    ),
    "pmr": Setting(primed_pmr, loss=True, adds=True, micro=False),
    "cggm": Setting(lambda m, n: CGGM(encoders(m, n), lambda_gm=0.0), levels=False),
    "cggm-update": Setting(
        lambda m, n: CGGM(encoders(m, n), lambda_gm=0.0, apply_to="update"), update=True, levels=False
    ),
    "cggm-heads": Setting(lambda m, n: CGGM(encoders(m, n), lambda_gm=0.0, source="heads"), levels=False),
    "cggm-direction": Setting(
        lambda m, n: CGGM(encoders(m, n)), loss=True, beyond=(*FUSION, "heads"), adds=True, levels=False
    ),
    "cggm-direction-heads": Setting(
        lambda m, n: CGGM(encoders(m, n), source="heads", head_lr=0.1),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        levels=False,
    ),
    "arl": Setting(lambda m, n: ARL(encoders(m, n), warmup=0), loss=True, beyond=("heads",), adds=True, levels=False),
    "arl-update": Setting(
        lambda m, n: ARL(encoders(m, n), gamma=0.0, warmup=0, apply_to="update"), update=True, levels=False
    ),
    "arl-warmup": Setting(
        lambda m, n: ARL(encoders(m, n), warmup=1), loss=True, beyond=("heads",), adds=True, levels=False
    ),
    "relearning": Setting(lambda m, n: Relearning(encoders(m, n), every=1), ends=True, levels=False),
    "recon-boost": Setting(
        lambda m, n: ReconBoost(encoders(m, n), epochs=1, rectify=1),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        levels=False,
        ordered=True,
    ),
    "recon-boost-second": Setting(
        boosted_twice, loss=True, beyond=(*FUSION, "heads"), adds=True, levels=False, ordered=True
    ),
    "umt": Setting(lambda m, n: UMT(encoders(m, n)), loss=True, adds=True, levels=False),
    "umt-weights": Setting(
        lambda m, n: UMT(encoders(m, n), weight={name: RATES[name] * (name != "audio") for name in n}),
        loss=True,
        adds=True,
        levels=False,
    ),
    "ume": Setting(lambda m, n: UME(encoders(m, n)), loss=True, beyond=(*FUSION, "heads"), adds=True, levels=False),
    "mla": Setting(
        lambda m, n: MLA(encoders(m, n)),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        levels=False,
        ordered=True,
    ),
    "mla-head": Setting(
        lambda m, n: MLA(encoders(m, n), head=m.heads["text"]),
        loss=True,
        beyond=(*FUSION, "heads"),
        adds=True,
        levels=False,
        ordered=True,
    ),
    "chain-stages": Setting(stages),
    "chain-agm-ogm": Setting(
        lambda m, n: Chain(AGM(encoders(m, n), alpha=1.0), OGMGE(encoders(m, n), noise=False)),
        loss=True,
        beyond=FUSION,
        micro=False,
    ),
}
