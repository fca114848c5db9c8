"""Composable gradient transformations for JAX.

Methods by family, in the order in which a gradient meets them; `gradkit list AGC` on the command
line, or `gradkit show AGC`, finds one by what people call it, and says all about it.
`help(gradkit.glossary)` explains what their docstrings share.

normalize: normalize_by_block, normalize_by_dual_norm, normalize_by_gravity,
    normalize_by_norm_power, normalize_by_orthograd, normalize_by_parallel_split,
    normalize_by_polar, normalize_by_tangent, normalize_by_trust_ratio
clip: clip_by_component_norm, clip_by_ema_norm, clip_by_global_norm, clip_by_median,
    clip_by_norm_growth, clip_by_percentile, clip_by_slice_norm, clip_by_spike,
    clip_by_unit_norm, clip_by_zscore
average: average_by_ademamix, average_by_complex, average_by_heavy_ball, average_by_lion,
    average_by_lion_kappa, average_by_mars, average_by_nesterov, average_by_optimism,
    average_by_random_scaling, average_by_running_median
direct: direct_by_caution, direct_by_grams
adaptive: scale_by_adabound, scale_by_adam, scale_by_adam_atan2, scale_by_adamomentum,
    scale_by_adan, scale_by_amsbound, scale_by_amsgrad, scale_by_diffgrad,
    scale_by_gradient_norm, scale_by_innaprop, scale_by_madgrad, scale_by_neuron_norm,
    scale_by_novograd, scale_by_oasis, scale_by_second_moment, scale_by_subset_norm
precondition: precondition_by_inverse_free_kfac, precondition_by_kl_shampoo,
    precondition_by_one_sided_shampoo, precondition_by_paired_factors, precondition_by_psgd,
    precondition_by_shampoo, precondition_by_soap
subspace: project_by_dct, project_by_dion, project_by_fira, project_by_grass_jump,
    project_by_grass_walk, project_by_null_space, project_by_power_iteration, project_by_random,
    project_by_random_subspace, project_by_range_finder, project_by_subspace_momentum,
    project_by_svd, project_by_weight_norm
sparsity: mask_by_annealing, mask_by_disruption, mask_by_fisher, mask_by_gradient_magnitude,
    mask_by_regrowth, mask_by_saliency, mask_by_small_weight
decay: decay_by_caution, decay_by_completep, decay_by_relevance, decay_by_unit_norm,
    decay_by_weight
size: step_by_dog, step_by_layer_dog, step_by_learning_rate, step_by_model_building,
    step_by_momo, step_by_momo_adam, step_by_polyak, step_by_prodigy, step_by_sania_adagrad,
    step_by_sania_adam, step_by_schedule_free, step_by_u_dog, step_by_weight_floor
schedule: schedule_by_cosine, schedule_by_half_life, schedule_by_inverse_root,
    schedule_by_linear_decay, schedule_by_one_cycle, schedule_by_refinement,
    schedule_by_sqrt_cooldown, schedule_by_step_law, schedule_by_time_transfer,
    schedule_by_warmup_stable_decay
batch_size: grow_batch_by_coordinate_norm_test, grow_batch_by_norm_test, rate_by_hessian_noise,
    rate_by_linear_scaling, rate_by_sqrt_scaling
transfer: transfer_by_alignment, transfer_by_completep, transfer_by_depth_mup,
    transfer_by_expert_mup, transfer_by_gradient_scale, transfer_by_learned_mup,
    transfer_by_mup, transfer_by_plain_mup, transfer_by_residual_scaling,
    transfer_by_second_order_mup, transfer_by_spectral, transfer_by_structure, transfer_by_umup
manifold: retract_by_conditioned_low_rank, retract_by_fixed_norm, retract_by_hyperball,
    retract_by_mirror, retract_by_radial_brake, retract_by_stiefel
proximal: shrink_by_group_lasso, shrink_by_half_space, shrink_by_nonconvex
rounding: round_by_error_correction, round_by_kahan, round_by_master, round_by_stochastic
route: route, share_norm
mix: mix, graft
accumulate: accumulate
tune: tune
guard: guard_by_finite, guard_by_spike
average_params: average_params_by_ema, average_params_by_polynomial, average_params_by_window
reset: reset_by_period
codec: store_by_bfloat16, store_by_bfloat16_plus8, store_by_fp8, store_by_int4, store_by_int8
offload: store_by_offload
view: view_by_pattern
init: init_by_eva, init_by_fixup, init_by_lora_ga, init_by_singular_values
metrics: measure
diagnostics: bound_of_schedule, check_coordinates, describe, find_learning_rate,
    measure_by_coherence, measure_by_effective_learning_rate, measure_by_example_score,
    measure_by_gap_change, measure_by_gram_norm, measure_by_hessian_spectrum,
    measure_by_interpolation, measure_by_landscape, measure_by_learning_rate_sensitivity,
    measure_by_noise_scale, measure_by_opposing_signals, measure_by_stability,
    measure_by_stable_rank, measure_by_subspace_overlap, race, sweep, sweep_transfer
recipe: adabound, adagc, adam_atan2, adamomentum, adamp, adamw, adamw_subset_norm, adan,
    ademamix, amsbound, amsgrad, apollo, apollo_mini, diffgrad, dion, fira, galore, grams,
    grass_jump, grass_walk, gravity, hspg, innaprop, lamb, lars, lawn, lion, lion_kappa, lorp,
    madgrad, mars, muon, normuon, novograd, opt_amsgrad, psgd, random_scaled_sgdm,
    schedule_free_adamw, sgd, sgdp, shampoo, snsm, soap, stable_spam, zclip_adamw

Beside them: glossary, parametrization, subspace, chain, eval_params, hyperparameters,
    metrics, newton_schulz, plot_schedule, restore_state, routes,
    set_hyperparameters, state_schema, state_sharding, then, times,
    Coordinates, Experiment, LogUniform, RaceEntry, RaceProgress, RaceTable,
    SweepProgress, SweepResult, SweepTable, Task, Uniform, OPTIMIZERS, RULES,
    LeafReading, ModelReading, Multipliers, Optimizer, Parameter,
    Parametrization, infer_parametrization, multiplier_columns, multipliers,
    read_model, rescale_init.

Written by tools/export.py.
"""

from optax import apply_updates as apply_updates

from gradkit import glossary as glossary
from gradkit import parametrization as parametrization
from gradkit import subspace as subspace
from gradkit._apply.manifold.conditioned_low_rank import (
    retract_by_conditioned_low_rank as retract_by_conditioned_low_rank,
)
from gradkit._apply.manifold.fixed_norm import (
    retract_by_fixed_norm as retract_by_fixed_norm,
)
from gradkit._apply.manifold.hyperball import (
    retract_by_hyperball as retract_by_hyperball,
)
from gradkit._apply.manifold.mirror import retract_by_mirror as retract_by_mirror
from gradkit._apply.manifold.radial_brake import (
    retract_by_radial_brake as retract_by_radial_brake,
)
from gradkit._apply.manifold.stiefel import retract_by_stiefel as retract_by_stiefel
from gradkit._apply.proximal.group_lasso import (
    shrink_by_group_lasso as shrink_by_group_lasso,
)
from gradkit._apply.proximal.half_space import (
    shrink_by_half_space as shrink_by_half_space,
)
from gradkit._apply.proximal.nonconvex import shrink_by_nonconvex as shrink_by_nonconvex
from gradkit._apply.rounding.error_correction import (
    round_by_error_correction as round_by_error_correction,
)
from gradkit._apply.rounding.kahan import round_by_kahan as round_by_kahan
from gradkit._apply.rounding.master import round_by_master as round_by_master
from gradkit._apply.rounding.stochastic import (
    round_by_stochastic as round_by_stochastic,
)
from gradkit._compose.accumulate.accumulate import accumulate as accumulate
from gradkit._compose.average.ema import average_params_by_ema as average_params_by_ema
from gradkit._compose.average.polynomial import (
    average_params_by_polynomial as average_params_by_polynomial,
)
from gradkit._compose.average.window import (
    average_params_by_window as average_params_by_window,
)
from gradkit._compose.guard.finite import guard_by_finite as guard_by_finite
from gradkit._compose.guard.spike import guard_by_spike as guard_by_spike
from gradkit._compose.mix.graft import graft as graft
from gradkit._compose.mix.mix import mix as mix
from gradkit._compose.reset.reset_by_period import reset_by_period as reset_by_period
from gradkit._compose.route.route import route as route
from gradkit._compose.route.share_norm import share_norm as share_norm
from gradkit._compose.tune.tune import tune as tune
from gradkit._compose.view.pattern import view_by_pattern as view_by_pattern
from gradkit._core import chain as chain
from gradkit._core import eval_params as eval_params
from gradkit._core import hyperparameters as hyperparameters
from gradkit._core import metrics as metrics
from gradkit._core import newton_schulz as newton_schulz
from gradkit._core import plot_schedule as plot_schedule
from gradkit._core import restore_state as restore_state
from gradkit._core import routes as routes
from gradkit._core import set_hyperparameters as set_hyperparameters
from gradkit._core import state_schema as state_schema
from gradkit._core import state_sharding as state_sharding
from gradkit._core import then as then
from gradkit._core import times as times
from gradkit._core.measure import Coordinates as Coordinates
from gradkit._core.measure import Experiment as Experiment
from gradkit._core.measure import LogUniform as LogUniform
from gradkit._core.measure import RaceEntry as RaceEntry
from gradkit._core.measure import RaceProgress as RaceProgress
from gradkit._core.measure import RaceTable as RaceTable
from gradkit._core.measure import SweepProgress as SweepProgress
from gradkit._core.measure import SweepResult as SweepResult
from gradkit._core.measure import SweepTable as SweepTable
from gradkit._core.measure import Task as Task
from gradkit._core.measure import Uniform as Uniform
from gradkit._init.eva import init_by_eva as init_by_eva
from gradkit._init.fixup import init_by_fixup as init_by_fixup
from gradkit._init.lora_ga import init_by_lora_ga as init_by_lora_ga
from gradkit._init.singular_values import (
    init_by_singular_values as init_by_singular_values,
)
from gradkit._observe.diagnostics.bound_of_schedule import (
    bound_of_schedule as bound_of_schedule,
)
from gradkit._observe.diagnostics.check_coordinates import (
    check_coordinates as check_coordinates,
)
from gradkit._observe.diagnostics.describe import describe as describe
from gradkit._observe.diagnostics.find_learning_rate import (
    find_learning_rate as find_learning_rate,
)
from gradkit._observe.diagnostics.measure_by_coherence import (
    measure_by_coherence as measure_by_coherence,
)
from gradkit._observe.diagnostics.measure_by_effective_learning_rate import (
    measure_by_effective_learning_rate as measure_by_effective_learning_rate,
)
from gradkit._observe.diagnostics.measure_by_example_score import (
    measure_by_example_score as measure_by_example_score,
)
from gradkit._observe.diagnostics.measure_by_gap_change import (
    measure_by_gap_change as measure_by_gap_change,
)
from gradkit._observe.diagnostics.measure_by_gram_norm import (
    measure_by_gram_norm as measure_by_gram_norm,
)
from gradkit._observe.diagnostics.measure_by_hessian_spectrum import (
    measure_by_hessian_spectrum as measure_by_hessian_spectrum,
)
from gradkit._observe.diagnostics.measure_by_interpolation import (
    measure_by_interpolation as measure_by_interpolation,
)
from gradkit._observe.diagnostics.measure_by_landscape import (
    measure_by_landscape as measure_by_landscape,
)
from gradkit._observe.diagnostics.measure_by_learning_rate_sensitivity import (
    measure_by_learning_rate_sensitivity as measure_by_learning_rate_sensitivity,
)
from gradkit._observe.diagnostics.measure_by_noise_scale import (
    measure_by_noise_scale as measure_by_noise_scale,
)
from gradkit._observe.diagnostics.measure_by_opposing_signals import (
    measure_by_opposing_signals as measure_by_opposing_signals,
)
from gradkit._observe.diagnostics.measure_by_stability import (
    measure_by_stability as measure_by_stability,
)
from gradkit._observe.diagnostics.measure_by_stable_rank import (
    measure_by_stable_rank as measure_by_stable_rank,
)
from gradkit._observe.diagnostics.measure_by_subspace_overlap import (
    measure_by_subspace_overlap as measure_by_subspace_overlap,
)
from gradkit._observe.diagnostics.race import race as race
from gradkit._observe.diagnostics.sweep import sweep as sweep
from gradkit._observe.diagnostics.sweep_transfer import sweep_transfer as sweep_transfer
from gradkit._observe.metrics.measure import measure as measure
from gradkit._recipes.adabound import adabound as adabound
from gradkit._recipes.adagc import adagc as adagc
from gradkit._recipes.adam_atan2 import adam_atan2 as adam_atan2
from gradkit._recipes.adamomentum import adamomentum as adamomentum
from gradkit._recipes.adamp import adamp as adamp
from gradkit._recipes.adamw import adamw as adamw
from gradkit._recipes.adamw_subset_norm import adamw_subset_norm as adamw_subset_norm
from gradkit._recipes.adan import adan as adan
from gradkit._recipes.ademamix import ademamix as ademamix
from gradkit._recipes.amsbound import amsbound as amsbound
from gradkit._recipes.amsgrad import amsgrad as amsgrad
from gradkit._recipes.apollo import apollo as apollo
from gradkit._recipes.apollo_mini import apollo_mini as apollo_mini
from gradkit._recipes.diffgrad import diffgrad as diffgrad
from gradkit._recipes.dion import dion as dion
from gradkit._recipes.fira import fira as fira
from gradkit._recipes.galore import galore as galore
from gradkit._recipes.grams import grams as grams
from gradkit._recipes.grass_jump import grass_jump as grass_jump
from gradkit._recipes.grass_walk import grass_walk as grass_walk
from gradkit._recipes.gravity import gravity as gravity
from gradkit._recipes.hspg import hspg as hspg
from gradkit._recipes.innaprop import innaprop as innaprop
from gradkit._recipes.lamb import lamb as lamb
from gradkit._recipes.lars import lars as lars
from gradkit._recipes.lawn import lawn as lawn
from gradkit._recipes.lion import lion as lion
from gradkit._recipes.lion_kappa import lion_kappa as lion_kappa
from gradkit._recipes.lorp import lorp as lorp
from gradkit._recipes.madgrad import madgrad as madgrad
from gradkit._recipes.mars import mars as mars
from gradkit._recipes.muon import muon as muon
from gradkit._recipes.normuon import normuon as normuon
from gradkit._recipes.novograd import novograd as novograd
from gradkit._recipes.opt_amsgrad import opt_amsgrad as opt_amsgrad
from gradkit._recipes.psgd import psgd as psgd
from gradkit._recipes.random_scaled_sgdm import random_scaled_sgdm as random_scaled_sgdm
from gradkit._recipes.schedule_free_adamw import (
    schedule_free_adamw as schedule_free_adamw,
)
from gradkit._recipes.sgd import sgd as sgd
from gradkit._recipes.sgdp import sgdp as sgdp
from gradkit._recipes.shampoo import shampoo as shampoo
from gradkit._recipes.snsm import snsm as snsm
from gradkit._recipes.soap import soap as soap
from gradkit._recipes.stable_spam import stable_spam as stable_spam
from gradkit._recipes.zclip_adamw import zclip_adamw as zclip_adamw
from gradkit._step.batch_size.grow_batch_by_coordinate_norm_test import (
    grow_batch_by_coordinate_norm_test as grow_batch_by_coordinate_norm_test,
)
from gradkit._step.batch_size.grow_batch_by_norm_test import (
    grow_batch_by_norm_test as grow_batch_by_norm_test,
)
from gradkit._step.batch_size.rate_by_hessian_noise import (
    rate_by_hessian_noise as rate_by_hessian_noise,
)
from gradkit._step.batch_size.rate_by_linear_scaling import (
    rate_by_linear_scaling as rate_by_linear_scaling,
)
from gradkit._step.batch_size.rate_by_sqrt_scaling import (
    rate_by_sqrt_scaling as rate_by_sqrt_scaling,
)
from gradkit._step.decay.caution import decay_by_caution as decay_by_caution
from gradkit._step.decay.completep import decay_by_completep as decay_by_completep
from gradkit._step.decay.relevance import decay_by_relevance as decay_by_relevance
from gradkit._step.decay.unit_norm import decay_by_unit_norm as decay_by_unit_norm
from gradkit._step.decay.weight import decay_by_weight as decay_by_weight
from gradkit._step.schedule.cosine import schedule_by_cosine as schedule_by_cosine
from gradkit._step.schedule.half_life import (
    schedule_by_half_life as schedule_by_half_life,
)
from gradkit._step.schedule.inverse_root import (
    schedule_by_inverse_root as schedule_by_inverse_root,
)
from gradkit._step.schedule.linear_decay import (
    schedule_by_linear_decay as schedule_by_linear_decay,
)
from gradkit._step.schedule.one_cycle import (
    schedule_by_one_cycle as schedule_by_one_cycle,
)
from gradkit._step.schedule.refinement import (
    schedule_by_refinement as schedule_by_refinement,
)
from gradkit._step.schedule.sqrt_cooldown import (
    schedule_by_sqrt_cooldown as schedule_by_sqrt_cooldown,
)
from gradkit._step.schedule.step_law import schedule_by_step_law as schedule_by_step_law
from gradkit._step.schedule.time_transfer import (
    schedule_by_time_transfer as schedule_by_time_transfer,
)
from gradkit._step.schedule.warmup_stable_decay import (
    schedule_by_warmup_stable_decay as schedule_by_warmup_stable_decay,
)
from gradkit._step.size.dog import step_by_dog as step_by_dog
from gradkit._step.size.layer_dog import step_by_layer_dog as step_by_layer_dog
from gradkit._step.size.learning_rate import (
    step_by_learning_rate as step_by_learning_rate,
)
from gradkit._step.size.model_building import (
    step_by_model_building as step_by_model_building,
)
from gradkit._step.size.momo import step_by_momo as step_by_momo
from gradkit._step.size.momo_adam import step_by_momo_adam as step_by_momo_adam
from gradkit._step.size.polyak import step_by_polyak as step_by_polyak
from gradkit._step.size.prodigy import step_by_prodigy as step_by_prodigy
from gradkit._step.size.sania_adagrad import (
    step_by_sania_adagrad as step_by_sania_adagrad,
)
from gradkit._step.size.sania_adam import step_by_sania_adam as step_by_sania_adam
from gradkit._step.size.schedule_free import (
    step_by_schedule_free as step_by_schedule_free,
)
from gradkit._step.size.u_dog import step_by_u_dog as step_by_u_dog
from gradkit._step.size.weight_floor import step_by_weight_floor as step_by_weight_floor
from gradkit._step.transfer.alignment import (
    transfer_by_alignment as transfer_by_alignment,
)
from gradkit._step.transfer.completep import (
    transfer_by_completep as transfer_by_completep,
)
from gradkit._step.transfer.depth_mup import (
    transfer_by_depth_mup as transfer_by_depth_mup,
)
from gradkit._step.transfer.expert_mup import (
    transfer_by_expert_mup as transfer_by_expert_mup,
)
from gradkit._step.transfer.gradient_scale import (
    transfer_by_gradient_scale as transfer_by_gradient_scale,
)
from gradkit._step.transfer.learned_mup import (
    transfer_by_learned_mup as transfer_by_learned_mup,
)
from gradkit._step.transfer.mup import transfer_by_mup as transfer_by_mup
from gradkit._step.transfer.plain_mup import (
    transfer_by_plain_mup as transfer_by_plain_mup,
)
from gradkit._step.transfer.residual_scaling import (
    transfer_by_residual_scaling as transfer_by_residual_scaling,
)
from gradkit._step.transfer.second_order_mup import (
    transfer_by_second_order_mup as transfer_by_second_order_mup,
)
from gradkit._step.transfer.spectral import transfer_by_spectral as transfer_by_spectral
from gradkit._step.transfer.structure import (
    transfer_by_structure as transfer_by_structure,
)
from gradkit._step.transfer.umup import transfer_by_umup as transfer_by_umup
from gradkit._store.codec.bfloat16 import store_by_bfloat16 as store_by_bfloat16
from gradkit._store.codec.bfloat16_plus8 import (
    store_by_bfloat16_plus8 as store_by_bfloat16_plus8,
)
from gradkit._store.codec.fp8 import store_by_fp8 as store_by_fp8
from gradkit._store.codec.int4 import store_by_int4 as store_by_int4
from gradkit._store.codec.int8 import store_by_int8 as store_by_int8
from gradkit._store.offload.offload import store_by_offload as store_by_offload
from gradkit._transform.adaptive.adabound import scale_by_adabound as scale_by_adabound
from gradkit._transform.adaptive.adam import scale_by_adam as scale_by_adam
from gradkit._transform.adaptive.adam_atan2 import (
    scale_by_adam_atan2 as scale_by_adam_atan2,
)
from gradkit._transform.adaptive.adamomentum import (
    scale_by_adamomentum as scale_by_adamomentum,
)
from gradkit._transform.adaptive.adan import scale_by_adan as scale_by_adan
from gradkit._transform.adaptive.amsbound import scale_by_amsbound as scale_by_amsbound
from gradkit._transform.adaptive.amsgrad import scale_by_amsgrad as scale_by_amsgrad
from gradkit._transform.adaptive.diffgrad import scale_by_diffgrad as scale_by_diffgrad
from gradkit._transform.adaptive.gradient_norm import (
    scale_by_gradient_norm as scale_by_gradient_norm,
)
from gradkit._transform.adaptive.innaprop import scale_by_innaprop as scale_by_innaprop
from gradkit._transform.adaptive.madgrad import scale_by_madgrad as scale_by_madgrad
from gradkit._transform.adaptive.neuron_norm import (
    scale_by_neuron_norm as scale_by_neuron_norm,
)
from gradkit._transform.adaptive.novograd import scale_by_novograd as scale_by_novograd
from gradkit._transform.adaptive.oasis import scale_by_oasis as scale_by_oasis
from gradkit._transform.adaptive.second_moment import (
    scale_by_second_moment as scale_by_second_moment,
)
from gradkit._transform.adaptive.subset_norm import (
    scale_by_subset_norm as scale_by_subset_norm,
)
from gradkit._transform.clip.component_norm import (
    clip_by_component_norm as clip_by_component_norm,
)
from gradkit._transform.clip.ema_norm import clip_by_ema_norm as clip_by_ema_norm
from gradkit._transform.clip.global_norm import (
    clip_by_global_norm as clip_by_global_norm,
)
from gradkit._transform.clip.median import clip_by_median as clip_by_median
from gradkit._transform.clip.norm_growth import (
    clip_by_norm_growth as clip_by_norm_growth,
)
from gradkit._transform.clip.percentile import clip_by_percentile as clip_by_percentile
from gradkit._transform.clip.slice_norm import clip_by_slice_norm as clip_by_slice_norm
from gradkit._transform.clip.spike import clip_by_spike as clip_by_spike
from gradkit._transform.clip.unit_norm import clip_by_unit_norm as clip_by_unit_norm
from gradkit._transform.clip.zscore import clip_by_zscore as clip_by_zscore
from gradkit._transform.momentum.ademamix import (
    average_by_ademamix as average_by_ademamix,
)
from gradkit._transform.momentum.caution import direct_by_caution as direct_by_caution
from gradkit._transform.momentum.complex import average_by_complex as average_by_complex
from gradkit._transform.momentum.grams import direct_by_grams as direct_by_grams
from gradkit._transform.momentum.heavy_ball import (
    average_by_heavy_ball as average_by_heavy_ball,
)
from gradkit._transform.momentum.lion import average_by_lion as average_by_lion
from gradkit._transform.momentum.lion_kappa import (
    average_by_lion_kappa as average_by_lion_kappa,
)
from gradkit._transform.momentum.mars import average_by_mars as average_by_mars
from gradkit._transform.momentum.nesterov import (
    average_by_nesterov as average_by_nesterov,
)
from gradkit._transform.momentum.optimism import (
    average_by_optimism as average_by_optimism,
)
from gradkit._transform.momentum.random_scaling import (
    average_by_random_scaling as average_by_random_scaling,
)
from gradkit._transform.momentum.running_median import (
    average_by_running_median as average_by_running_median,
)
from gradkit._transform.normalize.block import normalize_by_block as normalize_by_block
from gradkit._transform.normalize.dual_norm import (
    normalize_by_dual_norm as normalize_by_dual_norm,
)
from gradkit._transform.normalize.gravity import (
    normalize_by_gravity as normalize_by_gravity,
)
from gradkit._transform.normalize.norm_power import (
    normalize_by_norm_power as normalize_by_norm_power,
)
from gradkit._transform.normalize.orthograd import (
    normalize_by_orthograd as normalize_by_orthograd,
)
from gradkit._transform.normalize.parallel_split import (
    normalize_by_parallel_split as normalize_by_parallel_split,
)
from gradkit._transform.normalize.polar import normalize_by_polar as normalize_by_polar
from gradkit._transform.normalize.tangent import (
    normalize_by_tangent as normalize_by_tangent,
)
from gradkit._transform.normalize.trust_ratio import (
    normalize_by_trust_ratio as normalize_by_trust_ratio,
)
from gradkit._transform.precondition.inverse_free_kfac import (
    precondition_by_inverse_free_kfac as precondition_by_inverse_free_kfac,
)
from gradkit._transform.precondition.kl_shampoo import (
    precondition_by_kl_shampoo as precondition_by_kl_shampoo,
)
from gradkit._transform.precondition.one_sided_shampoo import (
    precondition_by_one_sided_shampoo as precondition_by_one_sided_shampoo,
)
from gradkit._transform.precondition.paired_factors import (
    precondition_by_paired_factors as precondition_by_paired_factors,
)
from gradkit._transform.precondition.psgd import (
    precondition_by_psgd as precondition_by_psgd,
)
from gradkit._transform.precondition.shampoo import (
    precondition_by_shampoo as precondition_by_shampoo,
)
from gradkit._transform.precondition.soap import (
    precondition_by_soap as precondition_by_soap,
)
from gradkit._transform.sparsity.annealing import mask_by_annealing as mask_by_annealing
from gradkit._transform.sparsity.disruption import (
    mask_by_disruption as mask_by_disruption,
)
from gradkit._transform.sparsity.fisher import mask_by_fisher as mask_by_fisher
from gradkit._transform.sparsity.gradient_magnitude import (
    mask_by_gradient_magnitude as mask_by_gradient_magnitude,
)
from gradkit._transform.sparsity.regrowth import mask_by_regrowth as mask_by_regrowth
from gradkit._transform.sparsity.saliency import mask_by_saliency as mask_by_saliency
from gradkit._transform.sparsity.small_weight import (
    mask_by_small_weight as mask_by_small_weight,
)
from gradkit._transform.subspace.dct import project_by_dct as project_by_dct
from gradkit._transform.subspace.dion import project_by_dion as project_by_dion
from gradkit._transform.subspace.fira import project_by_fira as project_by_fira
from gradkit._transform.subspace.grass_jump import (
    project_by_grass_jump as project_by_grass_jump,
)
from gradkit._transform.subspace.grass_walk import (
    project_by_grass_walk as project_by_grass_walk,
)
from gradkit._transform.subspace.null_space import (
    project_by_null_space as project_by_null_space,
)
from gradkit._transform.subspace.power_iteration import (
    project_by_power_iteration as project_by_power_iteration,
)
from gradkit._transform.subspace.random import project_by_random as project_by_random
from gradkit._transform.subspace.random_subspace import (
    project_by_random_subspace as project_by_random_subspace,
)
from gradkit._transform.subspace.range_finder import (
    project_by_range_finder as project_by_range_finder,
)
from gradkit._transform.subspace.subspace_momentum import (
    project_by_subspace_momentum as project_by_subspace_momentum,
)
from gradkit._transform.subspace.svd import project_by_svd as project_by_svd
from gradkit._transform.subspace.weight_norm import (
    project_by_weight_norm as project_by_weight_norm,
)
from gradkit.parametrization import OPTIMIZERS as OPTIMIZERS
from gradkit.parametrization import RULES as RULES
from gradkit.parametrization import LeafReading as LeafReading
from gradkit.parametrization import ModelReading as ModelReading
from gradkit.parametrization import Multipliers as Multipliers
from gradkit.parametrization import Optimizer as Optimizer
from gradkit.parametrization import Parameter as Parameter
from gradkit.parametrization import Parametrization as Parametrization
from gradkit.parametrization import infer_parametrization as infer_parametrization
from gradkit.parametrization import multiplier_columns as multiplier_columns
from gradkit.parametrization import multipliers as multipliers
from gradkit.parametrization import read_model as read_model
from gradkit.parametrization import rescale_init as rescale_init
