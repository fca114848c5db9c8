"""Every method, one line each: name, family, paper, reference code. Everything else is derived."""

from typing import NamedTuple


class Family(NamedTuple):
    """Where a family lives, the verb its names begin with, and what its factories return."""

    room: str
    verb: str
    kind: str  # "transform", "schedule", "diagnostic" or "recipe"


FAMILIES = {
    "normalize": Family("_transform/normalize", "normalize_by_", "transform"),
    "clip": Family("_transform/clip", "clip_by_", "transform"),
    "average": Family("_transform/momentum", "average_by_", "transform"),
    "direct": Family("_transform/momentum", "direct_by_", "transform"),
    "adaptive": Family("_transform/adaptive", "scale_by_", "transform"),
    "precondition": Family("_transform/precondition", "precondition_by_", "transform"),
    "subspace": Family("_transform/subspace", "project_by_", "transform"),
    "sparsity": Family("_transform/sparsity", "mask_by_", "transform"),
    "decay": Family("_step/decay", "decay_by_", "transform"),
    "size": Family("_step/size", "step_by_", "transform"),
    "schedule": Family("_step/schedule", "schedule_by_", "schedule"),
    "transfer": Family("_step/transfer", "transfer_by_", "transform"),
    "manifold": Family("_apply/manifold", "retract_by_", "transform"),
    "proximal": Family("_apply/proximal", "shrink_by_", "transform"),
    "route": Family("_compose/route", "", "transform"),
    "reset": Family("_compose/reset", "", "transform"),
    "view": Family("_compose/view", "view_by_", "transform"),
    "diagnostics": Family("_observe/diagnostics", "", "diagnostic"),
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
        """What the name gives: a transform, schedule or recipe, or a diagnostic's result."""
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
    Method("normalize_by_trust_ratio", "normalize", "1904.00962"),
    Method("clip_by_component_norm", "clip", "2210.10325"),
    Method("clip_by_ema_norm", "clip", "2502.11034"),
    Method("clip_by_global_norm", "clip", "1211.5063", "pytorch/pytorch"),
    Method("clip_by_median", "clip", "2402.12828"),
    Method("clip_by_norm_growth", "clip", "2410.01623", "xichen-fy/Fira"),
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
    Method("scale_by_neuron_norm", "adaptive", "2510.05491", "zichongli5/NorMuon"),
    Method("scale_by_novograd", "adaptive", "1905.11286", "NVIDIA/DeepLearningExamples"),
    Method("scale_by_oasis", "adaptive", "2109.05198"),
    Method("scale_by_second_moment", "adaptive", "1412.6980", "pytorch/pytorch"),
    Method("scale_by_subset_norm", "adaptive", "2411.07120", "timmytonga/sn-sm"),
    Method("precondition_by_inverse_free_kfac", "precondition", "2302.09738", "yorkerlin/StructuredNGD-DL"),
    Method("precondition_by_kl_shampoo", "precondition", "2509.03378", "yorkerlin/KL-Methods"),
    Method("precondition_by_one_sided_shampoo", "precondition", "2503.20762"),
    Method("precondition_by_paired_factors", "precondition", "2302.01186", "Titan-Tong/ScaledGD"),
    Method("precondition_by_psgd", "precondition", "2402.11858", "lixilinx/psgd_torch"),
    Method("precondition_by_shampoo", "precondition", "1802.09568", "facebookresearch/optimizers"),
    Method("precondition_by_soap", "precondition", "2409.11321", "nikhilvyas/SOAP"),
    Method("project_by_dct", "subspace", "2505.17967"),
    Method("project_by_dion", "subspace", "2504.05295", "microsoft/dion"),
    Method("project_by_fira", "subspace", "2410.01623", "xichen-fy/Fira"),
    Method("project_by_grass_jump", "subspace", "2510.01878"),
    Method("project_by_grass_walk", "subspace", "2510.01878"),
    Method("project_by_null_space", "subspace", "2103.09762"),
    Method("project_by_power_iteration", "subspace", "1905.13727"),
    Method("project_by_random", "subspace", "2412.05270", "zhuhanqing/APOLLO"),
    Method("project_by_random_subspace", "subspace", "1804.08838", "uber-research/intrinsic-dimension"),
    Method("project_by_range_finder", "subspace", "0909.4061"),
    Method("project_by_subspace_momentum", "subspace", "2411.07120", "timmytonga/sn-sm"),
    Method("project_by_svd", "subspace", "2403.03507", "jiaweizzhao/GaLore"),
    Method("project_by_weight_norm", "subspace", "2412.19616", "Jhhuangkay/Gradient-Weight-normalized-Low-rank-Projection-for-Efficient-LLM-Training"),
    Method("mask_by_annealing", "sparsity", "2304.06941"),
    Method("mask_by_disruption", "sparsity", "2506.12484", "filyp/MUDMAN"),
    Method("mask_by_fisher", "sparsity", "2111.09839", "varunnair18/FISH"),
    Method("mask_by_gradient_magnitude", "sparsity", "2406.15330"),
    Method("mask_by_regrowth", "sparsity", "2308.14831"),
    Method("mask_by_saliency", "sparsity", "2310.12508", "OPTML-Group/Unlearn-Saliency"),
    Method("mask_by_small_weight", "sparsity", "2409.06633"),
    Method("decay_by_caution", "decay", "2510.12402"),
    Method("decay_by_completep", "decay", "2505.01618", "EleutherAI/nanoGPT-mup"),
    Method("decay_by_relevance", "decay", "2204.04977"),
    Method("decay_by_unit_norm", "decay", "2103.06583"),
    Method("decay_by_weight", "decay", "1711.05101", "loshchil/AdamW-and-SGDW"),
    Method("step_by_learning_rate", "size", "none"),
    Method("step_by_weight_floor", "size", "none", "KellerJordan/modded-nanogpt"),
    Method("schedule_by_half_life", "schedule", "2409.03137", "apple/ml-ademamix"),
    Method("schedule_by_linear_decay", "schedule", "2310.07831"),
    Method("schedule_by_warmup_stable_decay", "schedule", "2501.18965"),
    Method("transfer_by_alignment", "transfer", "2407.05872"),
    Method("transfer_by_completep", "transfer", "2505.01618", "EleutherAI/nanoGPT-mup"),
    Method("transfer_by_depth_mup", "transfer", "2310.02244"),
    Method("transfer_by_expert_mup", "transfer", "2508.09752"),
    Method("transfer_by_gradient_scale", "transfer", "2407.05872"),
    Method("transfer_by_learned_mup", "transfer", "2406.00153", "bentherien/mu_learned_optimization"),
    Method("transfer_by_mup", "transfer", "2011.14522", "microsoft/mup"),
    Method("transfer_by_plain_mup", "transfer", "2203.03466", "microsoft/mup"),
    Method("transfer_by_residual_scaling", "transfer", "2309.16620"),
    Method("transfer_by_second_order_mup", "transfer", "2312.12226"),
    Method("transfer_by_spectral", "transfer", "2310.17813"),
    Method("transfer_by_structure", "transfer", "2406.06248", "shikaiqiu/compute-better-spent"),
    Method("transfer_by_umup", "transfer", "2407.17465", "graphcore-research/unit-scaling"),
    Method("retract_by_conditioned_low_rank", "manifold", "2306.01485", "MuditSethia08/CondLR_up"),
    Method("retract_by_fixed_norm", "manifold", "2108.05839"),
    Method("retract_by_hyperball", "manifold", "2606.16899", "NVIDIA-NeMo/Emerging-Optimizers"),
    Method("retract_by_mirror", "manifold", "2305.19394"),
    Method("retract_by_radial_brake", "manifold", "none", "NVIDIA-NeMo/Emerging-Optimizers"),
    Method("retract_by_stiefel", "manifold", "1810.00760"),
    Method("shrink_by_group_lasso", "proximal", "1608.03665"),
    Method("shrink_by_half_space", "proximal", "2107.07467", "tianyic/only_train_once"),
    Method("shrink_by_nonconvex", "proximal", "2009.10629"),
    Method("route", "route", "none", "google-research/big_vision"),
    Method("share_norm", "route", "none"),
    Method("reset_by_period", "reset", "2501.06842", "TianjinYellow/SPAM-Optimizer"),
    Method("view_by_pattern", "view", "none", "arogozhnikov/einops"),
    Method("check_coordinates", "diagnostics", "2203.03466", "microsoft/mup"),
    Method("sweep_transfer", "diagnostics", "2203.03466"),
    Method("adabound", "recipe", "1902.09843", "Luolc/AdaBound"),
    Method("adagc", "recipe", "2502.11034"),
    Method("adam_atan2", "recipe", "2407.05872"),
    Method("adamomentum", "recipe", "2106.11514"),
    Method("adamp", "recipe", "2006.08217", "clovaai/AdamP"),
    Method("adamw", "recipe", "1711.05101", "pytorch/pytorch"),
    Method("adamw_subset_norm", "recipe", "2411.07120", "timmytonga/sn-sm"),
    Method("adan", "recipe", "2208.06677", "sail-sg/Adan"),
    Method("ademamix", "recipe", "2409.03137", "apple/ml-ademamix"),
    Method("amsbound", "recipe", "1902.09843", "Luolc/AdaBound"),
    Method("amsgrad", "recipe", "1904.09237", "pytorch/pytorch"),
    Method("apollo", "recipe", "2412.05270", "zhuhanqing/APOLLO"),
    Method("apollo_mini", "recipe", "2412.05270", "zhuhanqing/APOLLO"),
    Method("diffgrad", "recipe", "1909.11015", "shivram1987/diffGrad"),
    Method("dion", "recipe", "2504.05295", "microsoft/dion"),
    Method("fira", "recipe", "2410.01623", "xichen-fy/Fira"),
    Method("galore", "recipe", "2403.03507", "jiaweizzhao/GaLore"),
    Method("grams", "recipe", "2412.17107", "Gunale0926/Grams"),
    Method("grass_jump", "recipe", "2510.01878"),
    Method("grass_walk", "recipe", "2510.01878"),
    Method("gravity", "recipe", "2101.09192", "dariush-bahrami/gravity.optimizer"),
    Method("hspg", "recipe", "2107.07467", "tianyic/only_train_once"),
    Method("innaprop", "recipe", "2410.05871", "innaprop/innaprop"),
    Method("lamb", "recipe", "1904.00962"),
    Method("lars", "recipe", "1708.03888"),
    Method("lawn", "recipe", "2108.05839"),
    Method("lion", "recipe", "2302.06675", "google/automl"),
    Method("lion_kappa", "recipe", "2310.05898"),
    Method("lorp", "recipe", "2412.19616", "Jhhuangkay/Gradient-Weight-normalized-Low-rank-Projection-for-Efficient-LLM-Training"),
    Method("madgrad", "recipe", "2101.11075", "facebookresearch/madgrad"),
    Method("mars", "recipe", "2411.10438", "AGI-Arena/MARS"),
    Method("muon", "recipe", "2409.20325", "KellerJordan/Muon"),
    Method("normuon", "recipe", "2510.05491", "zichongli5/NorMuon"),
    Method("novograd", "recipe", "1905.11286", "NVIDIA/DeepLearningExamples"),
    Method("opt_amsgrad", "recipe", "1903.01435"),
    Method("psgd", "recipe", "2402.11858", "lixilinx/psgd_torch"),
    Method("random_scaled_sgdm", "recipe", "2405.09742"),
    Method("sgd", "recipe", "10.1016/0041-5553(64)90137-5", "pytorch/pytorch"),
    Method("sgdp", "recipe", "2006.08217", "clovaai/AdamP"),
    Method("shampoo", "recipe", "1802.09568", "facebookresearch/optimizers"),
    Method("snsm", "recipe", "2411.07120", "timmytonga/sn-sm"),
    Method("soap", "recipe", "2409.11321", "nikhilvyas/SOAP"),
    Method("stable_spam", "recipe", "2502.17055", "TianjinYellow/StableSPAM"),
    Method("zclip_adamw", "recipe", "2504.02507", "bluorion-com/ZClip"),
)
# fmt: on
