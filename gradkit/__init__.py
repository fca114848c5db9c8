"""Composable gradient transformations for JAX. Written by tools/export.py."""

from optax import apply_updates as apply_updates
from optax import chain as chain

from gradkit._apply.manifold.conditioned_low_rank import (
    retract_by_conditioned_low_rank as retract_by_conditioned_low_rank,
)
from gradkit._apply.manifold.fixed_norm import (
    retract_by_fixed_norm as retract_by_fixed_norm,
)
from gradkit._apply.manifold.mirror import retract_by_mirror as retract_by_mirror
from gradkit._apply.manifold.stiefel import retract_by_stiefel as retract_by_stiefel
from gradkit._apply.proximal.group_lasso import (
    shrink_by_group_lasso as shrink_by_group_lasso,
)
from gradkit._apply.proximal.half_space import (
    shrink_by_half_space as shrink_by_half_space,
)
from gradkit._apply.proximal.nonconvex import shrink_by_nonconvex as shrink_by_nonconvex
from gradkit._compose.route.route import route as route
from gradkit._compose.route.share_norm import share_norm as share_norm
from gradkit._core.width import Growth as Growth
from gradkit._core.width import infer_parametrization as infer_parametrization
from gradkit._recipes.adabound import adabound as adabound
from gradkit._recipes.adam_atan2 import adam_atan2 as adam_atan2
from gradkit._recipes.adamomentum import adamomentum as adamomentum
from gradkit._recipes.adamw import adamw as adamw
from gradkit._recipes.adan import adan as adan
from gradkit._recipes.ademamix import ademamix as ademamix
from gradkit._recipes.amsbound import amsbound as amsbound
from gradkit._recipes.amsgrad import amsgrad as amsgrad
from gradkit._recipes.diffgrad import diffgrad as diffgrad
from gradkit._recipes.fira import fira as fira
from gradkit._recipes.galore import galore as galore
from gradkit._recipes.grams import grams as grams
from gradkit._recipes.innaprop import innaprop as innaprop
from gradkit._recipes.lion import lion as lion
from gradkit._recipes.lion_kappa import lion_kappa as lion_kappa
from gradkit._recipes.madgrad import madgrad as madgrad
from gradkit._recipes.mars import mars as mars
from gradkit._recipes.muon import muon as muon
from gradkit._recipes.novograd import novograd as novograd
from gradkit._recipes.sgd import sgd as sgd
from gradkit._step.decay.relevance import decay_by_relevance as decay_by_relevance
from gradkit._step.decay.unit_norm import decay_by_unit_norm as decay_by_unit_norm
from gradkit._step.decay.weight import decay_by_weight as decay_by_weight
from gradkit._step.schedule.half_life import (
    schedule_by_half_life as schedule_by_half_life,
)
from gradkit._step.schedule.linear_decay import (
    schedule_by_linear_decay as schedule_by_linear_decay,
)
from gradkit._step.schedule.warmup_stable_decay import (
    schedule_by_warmup_stable_decay as schedule_by_warmup_stable_decay,
)
from gradkit._step.size.learning_rate import (
    step_by_learning_rate as step_by_learning_rate,
)
from gradkit._step.transfer.mup import transfer_by_mup as transfer_by_mup
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
from gradkit._transform.subspace.fira import project_by_fira as project_by_fira
from gradkit._transform.subspace.svd import project_by_svd as project_by_svd
