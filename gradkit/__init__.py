"""Composable gradient transformations for JAX. Written by tools/export.py."""

from optax import apply_updates as apply_updates
from optax import chain as chain

from gradkit._compose.route.route import route as route
from gradkit._compose.route.share_norm import share_norm as share_norm
from gradkit._core.width import Growth as Growth
from gradkit._core.width import infer_parametrization as infer_parametrization
from gradkit._recipes.adamw import adamw as adamw
from gradkit._recipes.ademamix import ademamix as ademamix
from gradkit._recipes.grams import grams as grams
from gradkit._step.decay.weight import decay_by_weight as decay_by_weight
from gradkit._step.schedule.half_life import schedule_by_half_life as schedule_by_half_life
from gradkit._step.schedule.linear_decay import schedule_by_linear_decay as schedule_by_linear_decay
from gradkit._step.schedule.warmup_stable_decay import schedule_by_warmup_stable_decay as schedule_by_warmup_stable_decay
from gradkit._step.size.learning_rate import step_by_learning_rate as step_by_learning_rate
from gradkit._step.transfer.mup import transfer_by_mup as transfer_by_mup
from gradkit._transform.adaptive.adam import scale_by_adam as scale_by_adam
from gradkit._transform.adaptive.second_moment import scale_by_second_moment as scale_by_second_moment
from gradkit._transform.clip.component_norm import clip_by_component_norm as clip_by_component_norm
from gradkit._transform.clip.ema_norm import clip_by_ema_norm as clip_by_ema_norm
from gradkit._transform.clip.global_norm import clip_by_global_norm as clip_by_global_norm
from gradkit._transform.clip.percentile import clip_by_percentile as clip_by_percentile
from gradkit._transform.clip.unit_norm import clip_by_unit_norm as clip_by_unit_norm
from gradkit._transform.clip.zscore import clip_by_zscore as clip_by_zscore
from gradkit._transform.momentum.ademamix import average_by_ademamix as average_by_ademamix
from gradkit._transform.momentum.grams import direct_by_grams as direct_by_grams
from gradkit._transform.normalize.block import normalize_by_block as normalize_by_block
from gradkit._transform.normalize.orthograd import normalize_by_orthograd as normalize_by_orthograd
