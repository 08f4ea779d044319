"""The maths of the methods: pure functions of tensors."""

from equipoise.functional.factors import (
    agm_coefficients,
    ags_factors,
    exceeds_others,
    mean_of_others,
    ogm_factors,
)
from equipoise.functional.norms import gradient_norms
from equipoise.functional.shapley import shapley_responses

__all__ = [
    "agm_coefficients",
    "ags_factors",
    "exceeds_others",
    "gradient_norms",
    "mean_of_others",
    "ogm_factors",
    "shapley_responses",
]
