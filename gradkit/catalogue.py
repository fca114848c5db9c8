"""Every method, one line each: name, family, paper, reference code. Everything else is derived."""

from typing import NamedTuple


class Family(NamedTuple):
    """Where a family lives, the verb its names begin with, and what its factories return."""

    room: str
    verb: str
    kind: str  # "transform", "schedule" or "recipe"


FAMILIES = {
    "normalize": Family("_transform/normalize", "normalize_by_", "transform"),
    "clip": Family("_transform/clip", "clip_by_", "transform"),
    "average": Family("_transform/momentum", "average_by_", "transform"),
    "direct": Family("_transform/momentum", "direct_by_", "transform"),
    "adaptive": Family("_transform/adaptive", "scale_by_", "transform"),
    "subspace": Family("_transform/subspace", "project_by_", "transform"),
    "sparsity": Family("_transform/sparsity", "mask_by_", "transform"),
    "decay": Family("_step/decay", "decay_by_", "transform"),
    "size": Family("_step/size", "step_by_", "transform"),
    "schedule": Family("_step/schedule", "schedule_by_", "schedule"),
    "transfer": Family("_step/transfer", "transfer_by_", "transform"),
    "manifold": Family("_apply/manifold", "retract_by_", "transform"),
    "proximal": Family("_apply/proximal", "shrink_by_", "transform"),
    "route": Family("_compose/route", "", "transform"),
    "recipe": Family("_recipes", "", "recipe"),
}


class Method(NamedTuple):
    """One line of the catalogue."""

    name: str
    family: str
    paper: str  # arXiv number, doi, or "none"
    reference: str = ""  # the authors' or the best kept code, owner/name

    @property
    def kind(self) -> str:
        """What the factory returns: "transform", "schedule" or "recipe"."""
        return FAMILIES[self.family].kind

    @property
    def path(self) -> str:
        """The one file that defines this method."""
        family = FAMILIES[self.family]
        return f"gradkit/{family.room}/{self.name.removeprefix(family.verb)}.py"

    @property
    def module(self) -> str:
        """The import name of that file."""
        return self.path.removesuffix(".py").replace("/", ".")


# fmt: off
METHODS = (
    Method("normalize_by_block", "normalize", "1707.04822", "AliOsm/shakkelha"),
    Method("normalize_by_dual_norm", "normalize", "2409.20325", "jxbz/modula"),
    Method("normalize_by_gravity", "normalize", "2101.09192", "dariush-bahrami/gravity.optimizer"),
    Method("normalize_by_norm_power", "normalize", "2303.02854"),
    Method("normalize_by_orthograd", "normalize", "2501.04697"),
    Method("normalize_by_parallel_split", "normalize", "2410.02416", "huggingface/diffusers"),
    Method("normalize_by_polar", "normalize", "2409.20325", "KellerJordan/Muon"),
    Method("normalize_by_tangent", "normalize", "2006.08217", "clovaai/AdamP"),
    Method("clip_by_component_norm", "clip", "2210.10325"),
    Method("clip_by_ema_norm", "clip", "2502.11034"),
    Method("clip_by_global_norm", "clip", "1211.5063", "pytorch/pytorch"),
    Method("clip_by_median", "clip", "2402.12828"),
    Method("clip_by_percentile", "clip", "2007.14469", "pseeth/autoclip"),
    Method("clip_by_slice_norm", "clip", "2310.12474", "fudan-zvg/PGC-3D"),
    Method("clip_by_spike", "clip", "2502.17055", "TianjinYellow/StableSPAM"),
    Method("clip_by_unit_norm", "clip", "2102.06171", "deepmind/deepmind-research"),
    Method("clip_by_zscore", "clip", "2504.02507", "bluorion-com/ZClip"),
    Method("average_by_ademamix", "average", "2409.03137", "apple/ml-ademamix"),
    Method("average_by_complex", "average", "2102.08431"),
    Method("average_by_heavy_ball", "average", "10.1016/0041-5553(64)90137-5", "pytorch/pytorch"),
    Method("average_by_lion", "average", "2302.06675", "google/automl"),
    Method("average_by_lion_kappa", "average", "2310.05898"),
    Method("average_by_mars", "average", "2411.10438", "AGI-Arena/MARS"),
    Method("average_by_nesterov", "average", "1212.0901", "pytorch/pytorch"),
    Method("average_by_optimism", "average", "1903.01435"),
    Method("average_by_random_scaling", "average", "2405.09742"),
    Method("average_by_running_median", "average", "2203.10036"),
    Method("direct_by_caution", "direct", "2411.16085", "kyleliang919/C-Optim"),
    Method("direct_by_grams", "direct", "2412.17107", "Gunale0926/Grams"),
    Method("scale_by_adabound", "adaptive", "1902.09843", "Luolc/AdaBound"),
    Method("scale_by_adam", "adaptive", "1412.6980", "pytorch/pytorch"),
    Method("scale_by_adam_atan2", "adaptive", "2407.05872"),
    Method("scale_by_adamomentum", "adaptive", "2106.11514"),
    Method("scale_by_adan", "adaptive", "2208.06677", "sail-sg/Adan"),
    Method("scale_by_amsbound", "adaptive", "1902.09843", "Luolc/AdaBound"),
    Method("scale_by_amsgrad", "adaptive", "1904.09237", "pytorch/pytorch"),
    Method("scale_by_diffgrad", "adaptive", "1909.11015", "shivram1987/diffGrad"),
    Method("scale_by_gradient_norm", "adaptive", "2502.17055", "TianjinYellow/StableSPAM"),
    Method("scale_by_innaprop", "adaptive", "2410.05871", "innaprop/innaprop"),
    Method("scale_by_madgrad", "adaptive", "2101.11075", "facebookresearch/madgrad"),
    Method("scale_by_novograd", "adaptive", "1905.11286", "NVIDIA/DeepLearningExamples"),
    Method("scale_by_oasis", "adaptive", "2109.05198"),
    Method("scale_by_second_moment", "adaptive", "1412.6980", "pytorch/pytorch"),
    Method("scale_by_subset_norm", "adaptive", "2411.07120", "timmytonga/sn-sm"),
    Method("project_by_fira", "subspace", "2410.01623", "xichen-fy/Fira"),
    Method("project_by_svd", "subspace", "2403.03507", "jiaweizzhao/GaLore"),
    Method("mask_by_annealing", "sparsity", "2304.06941"),
    Method("mask_by_disruption", "sparsity", "2506.12484", "filyp/MUDMAN"),
    Method("mask_by_fisher", "sparsity", "2111.09839", "varunnair18/FISH"),
    Method("mask_by_gradient_magnitude", "sparsity", "2406.15330"),
    Method("mask_by_regrowth", "sparsity", "2308.14831"),
    Method("mask_by_saliency", "sparsity", "2310.12508", "OPTML-Group/Unlearn-Saliency"),
    Method("mask_by_small_weight", "sparsity", "2409.06633"),
    Method("decay_by_relevance", "decay", "2204.04977"),
    Method("decay_by_unit_norm", "decay", "2103.06583"),
    Method("decay_by_weight", "decay", "1711.05101", "loshchil/AdamW-and-SGDW"),
    Method("step_by_learning_rate", "size", "none"),
    Method("schedule_by_half_life", "schedule", "2409.03137", "apple/ml-ademamix"),
    Method("schedule_by_linear_decay", "schedule", "2310.07831"),
    Method("schedule_by_warmup_stable_decay", "schedule", "2501.18965"),
    Method("transfer_by_mup", "transfer", "2011.14522", "microsoft/mup"),
    Method("retract_by_conditioned_low_rank", "manifold", "2306.01485", "MuditSethia08/CondLR_up"),
    Method("retract_by_fixed_norm", "manifold", "2108.05839"),
    Method("retract_by_mirror", "manifold", "2305.19394"),
    Method("retract_by_stiefel", "manifold", "1810.00760"),
    Method("shrink_by_group_lasso", "proximal", "1608.03665"),
    Method("shrink_by_half_space", "proximal", "2107.07467", "tianyic/only_train_once"),
    Method("shrink_by_nonconvex", "proximal", "2009.10629"),
    Method("route", "route", "none", "google-research/big_vision"),
    Method("share_norm", "route", "none"),
    Method("adabound", "recipe", "1902.09843", "Luolc/AdaBound"),
    Method("adam_atan2", "recipe", "2407.05872"),
    Method("adamomentum", "recipe", "2106.11514"),
    Method("adamw", "recipe", "1711.05101", "pytorch/pytorch"),
    Method("adan", "recipe", "2208.06677", "sail-sg/Adan"),
    Method("ademamix", "recipe", "2409.03137", "apple/ml-ademamix"),
    Method("amsbound", "recipe", "1902.09843", "Luolc/AdaBound"),
    Method("amsgrad", "recipe", "1904.09237", "pytorch/pytorch"),
    Method("diffgrad", "recipe", "1909.11015", "shivram1987/diffGrad"),
    Method("fira", "recipe", "2410.01623", "xichen-fy/Fira"),
    Method("galore", "recipe", "2403.03507", "jiaweizzhao/GaLore"),
    Method("grams", "recipe", "2412.17107", "Gunale0926/Grams"),
    Method("innaprop", "recipe", "2410.05871", "innaprop/innaprop"),
    Method("lion", "recipe", "2302.06675", "google/automl"),
    Method("lion_kappa", "recipe", "2310.05898"),
    Method("madgrad", "recipe", "2101.11075", "facebookresearch/madgrad"),
    Method("mars", "recipe", "2411.10438", "AGI-Arena/MARS"),
    Method("muon", "recipe", "2409.20325", "KellerJordan/Muon"),
    Method("novograd", "recipe", "1905.11286", "NVIDIA/DeepLearningExamples"),
    Method("sgd", "recipe", "10.1016/0041-5553(64)90137-5", "pytorch/pytorch"),
)
# fmt: on
