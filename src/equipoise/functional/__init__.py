"""The maths of the methods: pure functions of tensors."""

from equipoise.functional.asymmetry import arl_weights
from equipoise.functional.blending import blending_weights
from equipoise.functional.boosting import boosting_loss, memory_loss
from equipoise.functional.clustering import kmeans, purity, relearning_strengths
from equipoise.functional.conflict import conflict_degrees, cp_factors, dominance_ratios, norm_conflicts
from equipoise.functional.correlation import canonical_correlations, cca_loss
from equipoise.functional.ensemble import ensemble, uncertainty_ensemble, uncertainty_weights
from equipoise.functional.factors import (
    agm_coefficients,
    ags_factors,
    exceeds_others,
    mean_of_others,
    ogm_factors,
)
from equipoise.functional.fisher import info_reg_coefficients, performance_gaps
from equipoise.functional.guidance import cggm_shares, output_residuals, row_cosines
from equipoise.functional.losses import (
    cmd,
    coral_loss,
    difference_loss,
    diversity_loss,
    orthogonality_loss,
    reconstruction_loss,
    similarity_loss,
    statistics_loss,
)
from equipoise.functional.modulation import agrees, cosine_distances, ipr_resets, mean_distances, sgm_factors
from equipoise.functional.norms import gradient_norms
from equipoise.functional.pareto import mm_pareto_weights, pareto_share
from equipoise.functional.prior import prior_mmd
from equipoise.functional.projection import damp_direction
from equipoise.functional.prototypes import pmr_coefficients, prototype_log_probabilities, quantile_edges
from equipoise.functional.rates import rate_changes, smooth_rates
from equipoise.functional.shapley import shapley_responses
from equipoise.functional.speeds import effective_updates, speed_gaps

__all__ = [
    "agm_coefficients",
    "agrees",
    "ags_factors",
    "arl_weights",
    "blending_weights",
    "boosting_loss",
    "canonical_correlations",
    "cca_loss",
    "cggm_shares",
    "cmd",
    "conflict_degrees",
    "coral_loss",
    "cosine_distances",
    "cp_factors",
    "damp_direction",
    "difference_loss",
    "diversity_loss",
    "dominance_ratios",
    "effective_updates",
    "ensemble",
    "exceeds_others",
    "gradient_norms",
    "info_reg_coefficients",
    "ipr_resets",
    "kmeans",
    "mean_distances",
    "mean_of_others",
    "memory_loss",
    "mm_pareto_weights",
    "norm_conflicts",
    "ogm_factors",
    "orthogonality_loss",
    "output_residuals",
    "pareto_share",
    "performance_gaps",
    "pmr_coefficients",
    "prior_mmd",
    "prototype_log_probabilities",
    "purity",
    "quantile_edges",
    "rate_changes",
    "reconstruction_loss",
    "relearning_strengths",
    "row_cosines",
    "sgm_factors",
    "shapley_responses",
    "similarity_loss",
    "smooth_rates",
    "speed_gaps",
    "statistics_loss",
    "uncertainty_ensemble",
    "uncertainty_weights",
]
