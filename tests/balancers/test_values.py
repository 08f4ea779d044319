"""Whole steps worked by hand. tanh(ln 2) = (4 - 1)/(4 + 1) = 3/5, so a factor 1 - tanh(ln 2) is 2/5."""

from __future__ import annotations

from math import exp, log, sqrt

import pytest
import torch
from tests.balancers.toy import backward, gradients, parameters
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from equipoise import AGM, AGS, MSES, OGMGE, Balancer, Modalities, Step

LN2 = log(2)


def test_ags() -> None:
    # Norms: text sqrt((1² + 7²)/2) = 5, audio sqrt((2² + 2²)/2) = 2, vision 3.
    # Means of others: 2.5, 4, 3.5: text alone is dominant, ρ = 5/2.5 = 2, ρ/(1+ρ) = 2/3, and α · 2/3 = ln 2.
    modalities = Modalities(text=parameters(1, -7), audio=parameters(2, -2), vision=parameters(3))
    balancer = AGS(modalities, alpha=1.5 * LN2)
    balancer.modulate()
    assert gradients(modalities) == {"text": pytest.approx([0.4, -2.8]), "audio": [2, -2], "vision": [3]}
    assert_close(balancer.trace["norms"], torch.tensor([5.0, 2.0, 3.0], dtype=torch.float64))
    assert_close(balancer.trace["factors"], torch.tensor([0.4, 1.0, 1.0], dtype=torch.float64))
    assert balancer.trace["dominant"].tolist() == [True, False, False]
    assert {key: float(value) for key, value in balancer.scalars().items() if key.startswith("factors")} == {
        "factors/text": pytest.approx(0.4),
        "factors/audio": 1.0,
        "factors/vision": 1.0,
    }


@pytest.mark.parametrize("strategy", ["average", "max"])
def test_ags_strategies_differ_where_two_are_above_the_others(strategy: str) -> None:
    # 7 against (5 + 0)/2: ρ = 14/5, share 14/19; 5 against (7 + 0)/2: ρ = 10/7, share 10/17.
    modalities = Modalities(text=parameters(7), audio=parameters(5), vision=parameters(0))
    AGS(modalities, alpha=LN2, strategy=strategy).modulate()  # type: ignore[arg-type]
    audio = 5 * 2 / (2 ** (2 * 10 / 17) + 1) if strategy == "average" else 5
    assert gradients(modalities)["text"] == pytest.approx([7 * 2 / (2 ** (2 * 14 / 19) + 1)])
    assert gradients(modalities)["audio"] == pytest.approx([audio])


def test_ags_update() -> None:
    # As above the factor of text is 2/5. SGD with lr 1/2 and decay 1/10 takes 10 to 10 - (g + 1)/2.
    modalities = Modalities(text=parameters(6), audio=parameters(4), vision=parameters(2))
    everything = [p for name in modalities for p in modalities.parameters(name)]
    optimizer = torch.optim.SGD(everything, lr=0.5, weight_decay=0.1)
    balancer = AGS(modalities, alpha=1.5 * LN2, apply_to="update")
    balancer.attach(optimizer)
    balancer.modulate()
    optimizer.step()
    assert [p.item() for p in everything] == pytest.approx([10 - 0.4 * 3.5, 10 - 2.5, 10 - 1.5])


def observe(balancer: Balancer, step: Step) -> None:
    balancer(step)
    balancer.modulate()


def ogm(alpha: float, unimodal: dict[str, Tensor], target: Tensor) -> tuple[OGMGE, Modalities]:
    modalities = Modalities(text=parameters(5), audio=parameters(3))
    balancer = OGMGE(modalities, alpha=alpha, noise=False)
    observe(balancer, Step(torch.zeros(()), target=target, unimodal=unimodal))
    return balancer, modalities


def test_ogm_for_classes() -> None:
    # Probability of the true class: text 3/4 and 1/2, audio 2/4 and 1/2; sums 5/4 and 1, ρ = 5/4, αρ = ln 2.
    text = torch.tensor([[log(3), 0.0], [0.0, 0.0]])
    audio = torch.tensor([[log(2), log(2)], [1.0, 1.0]])
    balancer, modalities = ogm(4 / 5 * LN2, {"text": text, "audio": audio}, torch.tensor([0, 1]))
    assert_close(balancer.trace["scores"], torch.tensor([1.25, 1.0]))
    assert gradients(modalities) == {"text": pytest.approx([2.0]), "audio": [3.0]}


def test_ogm_for_regression() -> None:
    # exp(-|error|): text exp(0) + exp(-ln 2) = 3/2, audio 1/2 + 1/4 = 3/4; ρ = 2, αρ = ln 2.
    target = torch.tensor([1.0, -2.0])
    outputs = {"text": target + torch.tensor([0.0, LN2]), "audio": target + torch.tensor([-LN2, 2 * LN2])}
    balancer, modalities = ogm(LN2 / 2, outputs, target)
    assert_close(balancer.trace["scores"], torch.tensor([1.5, 0.75]))
    assert gradients(modalities) == {"text": pytest.approx([2.0]), "audio": [3.0]}


def test_ogm_noise_of_a_single_number_is_all_but_nothing() -> None:
    modalities = Modalities(text=parameters(5), audio=parameters(3))
    equal = {"text": torch.zeros(1, 2), "audio": torch.zeros(1, 2)}
    observe(OGMGE(modalities), Step(torch.zeros(()), target=torch.tensor([0]), unimodal=equal))
    assert gradients(modalities) == {"text": pytest.approx([5.0], abs=1e-6), "audio": pytest.approx([3.0], abs=1e-6)}


def test_agm_for_classes() -> None:
    """φ is a sum over modalities, so that the responses are its terms."""
    # text: logits (t, 0) with t = ln 3, cross-entropy -ln 3/4; audio: (a, 0) with a = -ln 3, -ln 1/4. Their difference
    # is ln 3: r = exp(2 (mean - s)) = 3 and 1/3, τ = 1, and with α = ln 2: κ = 2^-(3 - 1), 2^-(1/3 - 1).
    text, audio = (nn.Parameter(torch.tensor(value)) for value in (log(3), -log(3)))
    balancer = AGM(Modalities(text=[text], audio=[audio]), alpha=LN2)
    target = torch.tensor([0])

    def predict(kept: frozenset[str]) -> Tensor:
        return torch.stack([text * ("text" in kept) + audio * ("audio" in kept), torch.zeros(())])[None]

    logits = predict(frozenset({"text", "audio"}))  # (0, 0): probabilities 1/2, slope of the loss -1/2
    backward(balancer(Step(F.cross_entropy(logits, target), logits=logits, target=target, predict=predict)))
    balancer.modulate()
    assert_close(balancer.trace["factors"], torch.tensor([1 / 4, 2 ** (2 / 3)]))
    assert_close(balancer.trace["scores"], torch.tensor([log(4 / 3), log(4)]))
    assert text.grad is not None
    assert audio.grad is not None
    assert_close(text.grad, torch.tensor(-1 / 2 / 4))
    assert_close(audio.grad, torch.tensor(-1 / 2 * 2 ** (2 / 3)))


@pytest.mark.parametrize(("score", "power"), [("laplace", 1), ("squared_error", 2)])
def test_agm_for_regression(score: str, power: int) -> None:
    # Targets 3 and 0, responses (2, 1) of text and (2, 2) of audio: mean errors 1 and 3/2, mean squares 1 and 5/2.
    text, audio = nn.Parameter(torch.tensor([2.0, 1.0])), nn.Parameter(torch.tensor([2.0, 2.0]))
    balancer = AGM(Modalities(text=[text], audio=[audio]), alpha=1.0, regression=score)  # type: ignore[arg-type]
    target = torch.tensor([3.0, 0.0])

    def predict(kept: frozenset[str]) -> Tensor:
        return text * ("text" in kept) + audio * ("audio" in kept)

    logits = predict(frozenset({"text", "audio"}))  # (4, 3): both above the target, slope of the mean error 1/2
    backward(balancer(Step(F.l1_loss(logits, target), logits=logits, target=target, predict=predict)))
    balancer.modulate()
    gap = 0.5 if power == 1 else 1.5  # r = exp(2 · gap/2) and its inverse
    assert_close(balancer.trace["scores"], torch.tensor([1.0, 1.0 + gap]))
    assert text.grad is not None
    assert_close(text.grad, torch.full((2,), 0.5 * exp(1 - exp(gap))))
    assert audio.grad is not None
    assert_close(audio.grad, torch.full((2,), 0.5 * exp(1 - exp(-gap))))


def test_agm_remembers_the_mean_of_the_steps_before() -> None:
    # Scores of text: 0, then ln 2; of audio: ln 2 twice, then more. (Errors of a response whose target is zero.)
    balancer = AGM(Modalities(text=parameters(1), audio=parameters(1)), alpha=LN2)
    factors = []
    for text_error, audio_error in [(0.0, LN2), (LN2, LN2), (0.0, 0.0)]:
        weights = {"text": torch.tensor([text_error], requires_grad=True), "audio": torch.tensor([audio_error])}

        def predict(kept: frozenset[str], weights: dict[str, Tensor] = weights) -> Tensor:
            return sum((weights[name] for name in kept), torch.zeros(1))

        logits = predict(frozenset({"text", "audio"}))
        observe(balancer, Step(logits.sum(), logits=logits, target=torch.zeros(1), predict=predict))
        factors.append(balancer.trace["factors"])
    # Step 1: r = 2, 1/2 and τ = 1. Step 2: r = 1 and τ from means (0, ln 2) = 2, 1/2.
    # Step 3: r = 1 and τ from means (ln 2 / 2, ln 2) = exp(ln 2 / 2), its inverse.
    assert_close(factors[0], torch.tensor([2.0**-1, 2.0**0.5]))
    assert_close(factors[1], torch.tensor([2.0**1, 2.0**-0.5]))
    assert_close(factors[2], torch.tensor([2 ** (sqrt(2) - 1), 2 ** (1 / sqrt(2) - 1)]))
    assert_close(balancer.running, torch.tensor([LN2 / 3, LN2 * 2 / 3]))


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "epochs"),
    [
        ([3, 2, 1, 1, 1, 1], 1, 0.0, 4),  # the fourth epoch is the first that is no better
        ([3, 2, 1, 1, 1, 1], 2, 0.0, 5),
        ([3, 2, 1, 2, 0.5, 2], 2, 0.0, None),  # an improvement starts the count anew
        ([3, 2, 1, 2, 2, 0.5], 2, 0.0, 5),  # stopped is stopped
        ([3, 2.5, 2, 1.5, 1], 1, 0.5, 2),  # falls by no more than min_delta
        ([3, 2.75, 2.25, 1.5], 2, 0.5, None),  # measured from the best that counted, 3: 2.25 does
        ([float("nan"), 1, 0.5], 1, 0.0, 1),  # a loss that is not a number is no improvement
    ],
)
def test_mses(losses: list[float], patience: int, min_delta: float, epochs: int | None) -> None:
    modalities = Modalities(text=parameters(1), audio=parameters(1))
    balancer = MSES(modalities, patience=patience, min_delta=min_delta)
    stopped_after = None
    for epoch, loss in enumerate(losses, start=1):
        own = {"text": torch.tensor([float(loss)]), "audio": torch.tensor([-float(epoch)])}
        balancer.end_epoch(
            val=[Step(torch.zeros(()), target=torch.zeros(1), unimodal=own, criterion=lambda x, _: x.mean())]
        )
        if "text" in balancer.stopped and stopped_after is None:
            stopped_after = epoch
        assert "audio" not in balancer.stopped
    assert stopped_after == epochs


def test_mses_weighs_batches_by_their_rows_and_drops_gradients() -> None:
    # 3 rows at 1 and 1 row at 5: 2 a row (a mean over batches would be 3), then 2.5: no better.
    modalities = Modalities(text=parameters(1), audio=parameters(1))
    balancer = MSES(modalities, patience=1)
    for batches in ([(3, 1.0), (1, 5.0)], [(4, 2.5)]):
        balancer.end_epoch(
            val=[
                Step(
                    torch.zeros(()),
                    target=torch.zeros(rows),
                    unimodal={"text": torch.full((rows,), value), "audio": torch.full((rows,), -value)},
                    criterion=lambda x, _: x.mean(),
                )
                for rows, value in batches
            ]
        )
    assert balancer.stopped == ("text",)
    own = {"text": torch.zeros(1), "audio": torch.zeros(1)}
    observe(balancer, Step(torch.zeros(()), target=torch.zeros(1), unimodal=own, criterion=F.l1_loss))
    assert gradients(modalities) == {"text": [], "audio": [1.0]}


def test_a_stopped_modality_stays_where_it_is_under_weight_decay_and_momentum() -> None:
    modalities = Modalities(text=parameters(1), audio=parameters(1))
    everything = [p for name in modalities for p in modalities.parameters(name)]
    optimizer = torch.optim.AdamW(everything, lr=0.1, weight_decay=0.5)
    optimizer.step()
    balancer = MSES(modalities, patience=1)
    balancer.load_state_dict(
        {"_extra_state": torch.tensor([[1.0, 1.0], [1.0, 0.0]]), "window._extra_state": torch.tensor([1])}
    )
    before = [p.item() for p in everything]
    own = {"text": torch.zeros(1), "audio": torch.zeros(1)}
    observe(balancer, Step(torch.zeros(()), target=torch.zeros(1), unimodal=own, criterion=F.l1_loss))
    optimizer.step()
    assert everything[0].item() == before[0]
    assert everything[1].item() < before[1] - 0.1
