"""Every method, one line each: name, family, paper, reference code, and what people call it.

Everything else is derived.
"""

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
    "rounding": Family("_apply/rounding", "round_by_", "transform"),
    "route": Family("_compose/route", "", "transform"),
    "mix": Family("_compose/mix", "", "transform"),
    "accumulate": Family("_compose/accumulate", "", "transform"),
    "tune": Family("_compose/tune", "", "transform"),
    "guard": Family("_compose/guard", "guard_by_", "transform"),
    "average_params": Family("_compose/average", "average_params_by_", "transform"),
    "reset": Family("_compose/reset", "", "transform"),
    "codec": Family("_store/codec", "store_by_", "transform"),
    "offload": Family("_store/offload", "store_by_", "transform"),
    "view": Family("_compose/view", "view_by_", "transform"),
    "metrics": Family("_observe/metrics", "", "transform"),
    "diagnostics": Family("_observe/diagnostics", "", "diagnostic"),
    "recipe": Family("_recipes", "", "recipe"),
}


class Method(NamedTuple):
    """One line of the catalogue."""

    name: str
    family: str
    paper: str  # arXiv number, doi, or "none"
    reference: str = ""  # the authors' or the best kept code, owner/name
    known_as: str = ""  # what people search for, beside its own name

    @property
    def names(self) -> list[str]:
        """Its own name, and those it is known by."""
        return [self.name, *filter(None, self.known_as.split(", "))]

    @property
    def kind(self) -> str:
        """The kind of its result: a transform, schedule, recipe, or the result of a diagnostic."""
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
    Method("normalize_by_block", "normalize", "1707.04822", "AliOsm/shakkelha", known_as="block-normalized gradient, BNG, layer-wise normalized gradient"),
    Method("normalize_by_dual_norm", "normalize", "2409.20325", "jxbz/modula", known_as="Modula, steepest descent under norms, modular duality"),
    Method("normalize_by_gravity", "normalize", "2101.09192", "dariush-bahrami/gravity.optimizer", known_as="Gravity"),
    Method("normalize_by_norm_power", "normalize", "2303.02854", known_as="beta-normalized gradient descent, generalized smoothness"),
    Method("normalize_by_orthograd", "normalize", "2501.04697", known_as="OrthoGrad, orthogonal gradient, perpendicular gradient, grokking"),
    Method("normalize_by_parallel_split", "normalize", "2410.02416", "huggingface/diffusers", known_as="APG, adaptive projected guidance"),
    Method("normalize_by_polar", "normalize", "2409.20325", "KellerJordan/Muon", known_as="Muon, orthogonalization, Newton-Schulz, zeropower"),
    Method("normalize_by_tangent", "normalize", "2006.08217", "clovaai/AdamP", known_as="AdamP, SGDP, projection of scale-invariant weights"),
    Method("normalize_by_trust_ratio", "normalize", "1904.00962", known_as="LAMB, LARS, trust ratio, layer-wise adaptive rate"),
    Method("clip_by_component_norm", "clip", "2210.10325", known_as="per-parameter clipping, component-wise gradient norm clipping"),
    Method("clip_by_ema_norm", "clip", "2502.11034", known_as="AdaGC"),
    Method("clip_by_global_norm", "clip", "1211.5063", "pytorch/pytorch", known_as="gradient clipping, clip_grad_norm, norm clipping"),
    Method("clip_by_median", "clip", "2402.12828", known_as="median clipping"),
    Method("clip_by_norm_growth", "clip", "2410.01623", "xichen-fy/Fira", known_as="norm-growth limiter, Fira limiter, NL"),
    Method("clip_by_percentile", "clip", "2007.14469", "pseeth/autoclip", known_as="AutoClip"),
    Method("clip_by_slice_norm", "clip", "2310.12474", "fudan-zvg/PGC-3D", known_as="PGC, pixel-wise gradient clipping"),
    Method("clip_by_spike", "clip", "2502.17055", "TianjinYellow/StableSPAM", known_as="AdaClip, Stable-SPAM, spike-aware clipping"),
    Method("clip_by_unit_norm", "clip", "2102.06171", "deepmind/deepmind-research", known_as="AGC, adaptive gradient clipping, NFNets"),
    Method("clip_by_zscore", "clip", "2504.02507", "bluorion-com/ZClip", known_as="ZClip"),
    Method("average_by_ademamix", "average", "2409.03137", "apple/ml-ademamix", known_as="AdEMAMix"),
    Method("average_by_complex", "average", "2102.08431", known_as="complex momentum"),
    Method("average_by_heavy_ball", "average", "10.1016/0041-5553(64)90137-5", "pytorch/pytorch", known_as="momentum, heavy ball, Polyak momentum"),
    Method("average_by_lion", "average", "2302.06675", "google/automl", known_as="Lion, EvoLved sign momentum"),
    Method("average_by_lion_kappa", "average", "2310.05898", known_as="Lion-K, Lion-kappa"),
    Method("average_by_mars", "average", "2411.10438", "AGI-Arena/MARS", known_as="MARS, variance reduction"),
    Method("average_by_nesterov", "average", "1212.0901", "pytorch/pytorch", known_as="NAG, Nesterov momentum, Nesterov accelerated gradient"),
    Method("average_by_optimism", "average", "1903.01435", known_as="optimistic gradient, OPT-AMSGrad"),
    Method("average_by_random_scaling", "average", "2405.09742", known_as="random scaling, exponentiated O2NC"),
    Method("average_by_running_median", "average", "2203.10036", known_as="RM3, median of gradients"),
    Method("direct_by_caution", "direct", "2411.16085", "kyleliang919/C-Optim", known_as="cautious optimizer, C-AdamW, C-Lion, caution mask"),
    Method("direct_by_grams", "direct", "2412.17107", "Gunale0926/Grams", known_as="Grams"),
    Method("scale_by_adabound", "adaptive", "1902.09843", "Luolc/AdaBound", known_as="AdaBound"),
    Method("scale_by_adam", "adaptive", "1412.6980", "pytorch/pytorch", known_as="Adam"),
    Method("scale_by_adam_atan2", "adaptive", "2407.05872", known_as="Adam-atan2"),
    Method("scale_by_adamomentum", "adaptive", "2106.11514", known_as="AdaMomentum"),
    Method("scale_by_adan", "adaptive", "2208.06677", "sail-sg/Adan", known_as="Adan"),
    Method("scale_by_amsbound", "adaptive", "1902.09843", "Luolc/AdaBound", known_as="AMSBound"),
    Method("scale_by_amsgrad", "adaptive", "1904.09237", "pytorch/pytorch", known_as="AMSGrad"),
    Method("scale_by_diffgrad", "adaptive", "1909.11015", "shivram1987/diffGrad", known_as="diffGrad"),
    Method("scale_by_gradient_norm", "adaptive", "2502.17055", "TianjinYellow/StableSPAM", known_as="AdaGN, Stable-SPAM"),
    Method("scale_by_innaprop", "adaptive", "2410.05871", "innaprop/innaprop", known_as="INNAprop"),
    Method("scale_by_madgrad", "adaptive", "2101.11075", "facebookresearch/madgrad", known_as="MADGRAD"),
    Method("scale_by_neuron_norm", "adaptive", "2510.05491", "zichongli5/NorMuon", known_as="NorMuon"),
    Method("scale_by_novograd", "adaptive", "1905.11286", "NVIDIA/DeepLearningExamples", known_as="NovoGrad"),
    Method("scale_by_oasis", "adaptive", "2109.05198", known_as="OASIS, diagonal Hessian"),
    Method("scale_by_second_moment", "adaptive", "1412.6980", "pytorch/pytorch", known_as="RMSProp with bias correction, second moment"),
    Method("scale_by_subset_norm", "adaptive", "2411.07120", "timmytonga/sn-sm", known_as="SN, subset-norm, AdamSN"),
    Method("precondition_by_inverse_free_kfac", "precondition", "2302.09738", "yorkerlin/StructuredNGD-DL", known_as="IF-KFAC, INGD, SINGD, inverse-free K-FAC, natural gradient"),
    Method("precondition_by_kl_shampoo", "precondition", "2509.03378", "yorkerlin/KL-Methods", known_as="KL-Shampoo"),
    Method("precondition_by_one_sided_shampoo", "precondition", "2503.20762", known_as="ASGO, one-sided Shampoo"),
    Method("precondition_by_paired_factors", "precondition", "2302.01186", "Titan-Tong/ScaledGD", known_as="ScaledGD, LoRA preconditioning, Riemannian preconditioned LoRA"),
    Method("precondition_by_psgd", "precondition", "2402.11858", "lixilinx/psgd_torch", known_as="PSGD, Kron, preconditioned SGD"),
    Method("precondition_by_shampoo", "precondition", "1802.09568", "facebookresearch/optimizers", known_as="Shampoo"),
    Method("precondition_by_soap", "precondition", "2409.11321", "nikhilvyas/SOAP", known_as="SOAP"),
    Method("project_by_dct", "subspace", "2505.17967", known_as="DCT subspace, FFT-based subspace selection"),
    Method("project_by_dion", "subspace", "2504.05295", "microsoft/dion", known_as="Dion"),
    Method("project_by_fira", "subspace", "2410.01623", "xichen-fy/Fira", known_as="Fira"),
    Method("project_by_grass_jump", "subspace", "2510.01878", known_as="GrassJump"),
    Method("project_by_grass_walk", "subspace", "2510.01878", known_as="GrassWalk"),
    Method("project_by_null_space", "subspace", "2103.09762", known_as="GPM, gradient projection memory, continual learning"),
    Method("project_by_power_iteration", "subspace", "1905.13727", known_as="PowerSGD, subspace iteration"),
    Method("project_by_random", "subspace", "2412.05270", "zhuhanqing/APOLLO", known_as="APOLLO, random projection"),
    Method("project_by_random_subspace", "subspace", "1804.08838", "uber-research/intrinsic-dimension", known_as="intrinsic dimension, Fastfood"),
    Method("project_by_range_finder", "subspace", "0909.4061", known_as="randomized SVD, range finder"),
    Method("project_by_subspace_momentum", "subspace", "2411.07120", "timmytonga/sn-sm", known_as="SM, subspace-momentum, SNSM"),
    Method("project_by_svd", "subspace", "2403.03507", "jiaweizzhao/GaLore", known_as="GaLore, gradient low-rank projection"),
    Method("project_by_weight_norm", "subspace", "2412.19616", "Jhhuangkay/Gradient-Weight-normalized-Low-rank-Projection-for-Efficient-LLM-Training", known_as="GradNormLoRP"),
    Method("mask_by_annealing", "sparsity", "2304.06941", known_as="AutoSparse"),
    Method("mask_by_disruption", "sparsity", "2506.12484", "filyp/MUDMAN", known_as="MUDMAN, disruption masking, unlearning"),
    Method("mask_by_fisher", "sparsity", "2111.09839", "varunnair18/FISH", known_as="FISH mask, Fisher mask"),
    Method("mask_by_gradient_magnitude", "sparsity", "2406.15330", known_as="GMT, gradient-mask tuning"),
    Method("mask_by_regrowth", "sparsity", "2308.14831", known_as="RigL, SET, dynamic sparse training"),
    Method("mask_by_saliency", "sparsity", "2310.12508", "OPTML-Group/Unlearn-Saliency", known_as="SalUn, saliency unlearning"),
    Method("mask_by_small_weight", "sparsity", "2409.06633", known_as="SaRA"),
    Method("decay_by_caution", "decay", "2510.12402", known_as="CWD, cautious weight decay"),
    Method("decay_by_completep", "decay", "2505.01618", "EleutherAI/nanoGPT-mup", known_as="CompleteP"),
    Method("decay_by_relevance", "decay", "2204.04977", known_as="pruning of irrelevant weights"),
    Method("decay_by_unit_norm", "decay", "2103.06583", known_as="Norm Loss"),
    Method("decay_by_weight", "decay", "1711.05101", "loshchil/AdamW-and-SGDW", known_as="AdamW, decoupled weight decay"),
    Method("step_by_learning_rate", "size", "none", known_as="learning rate, scale_by_learning_rate"),
    Method("step_by_weight_floor", "size", "none", "KellerJordan/modded-nanogpt", known_as="u/w floor"),
    Method("schedule_by_half_life", "schedule", "2409.03137", "apple/ml-ademamix", known_as="AdEMAMix warmup of beta3"),
    Method("schedule_by_linear_decay", "schedule", "2310.07831", known_as="linear decay to zero, D2Z"),
    Method("schedule_by_warmup_stable_decay", "schedule", "2501.18965", known_as="WSD, trapezoidal, cooldown"),
    Method("transfer_by_alignment", "transfer", "2407.05872", known_as="per-layer learning rates, alignment"),
    Method("transfer_by_completep", "transfer", "2505.01618", "EleutherAI/nanoGPT-mup", known_as="CompleteP"),
    Method("transfer_by_depth_mup", "transfer", "2310.02244", known_as="depth-muP, Tensor Programs VI"),
    Method("transfer_by_expert_mup", "transfer", "2508.09752", known_as="muP for MoE, mixture of experts"),
    Method("transfer_by_gradient_scale", "transfer", "2407.05872", known_as="per-layer epsilon, epsilon scaling"),
    Method("transfer_by_learned_mup", "transfer", "2406.00153", "bentherien/mu_learned_optimization", known_as="muLO, learned optimizers"),
    Method("transfer_by_mup", "transfer", "2011.14522", "microsoft/mup", known_as="muP, maximal update parametrization, muTransfer"),
    Method("transfer_by_plain_mup", "transfer", "2203.03466", "microsoft/mup", known_as="muP without multipliers, Table 3 of Tensor Programs V"),
    Method("transfer_by_residual_scaling", "transfer", "2309.16620", known_as="depthwise transfer, 1/sqrt(depth) residual scaling"),
    Method("transfer_by_second_order_mup", "transfer", "2312.12226", known_as="muP for K-FAC, muP for Shampoo"),
    Method("transfer_by_spectral", "transfer", "2310.17813", known_as="spectral condition, spectral muP"),
    Method("transfer_by_structure", "transfer", "2406.06248", "shikaiqiu/compute-better-spent", known_as="structured matrices, BTT, Monarch, Kronecker"),
    Method("transfer_by_umup", "transfer", "2407.17465", "graphcore-research/unit-scaling", known_as="u-muP, unit scaling"),
    Method("retract_by_conditioned_low_rank", "manifold", "2306.01485", "MuditSethia08/CondLR_up", known_as="CondLR"),
    Method("retract_by_fixed_norm", "manifold", "2108.05839", known_as="LAWN"),
    Method("retract_by_hyperball", "manifold", "2606.16899", "NVIDIA-NeMo/Emerging-Optimizers", known_as="Hyperball"),
    Method("retract_by_mirror", "manifold", "2305.19394", known_as="mirror descent, exponentiated gradient"),
    Method("retract_by_radial_brake", "manifold", "none", "NVIDIA-NeMo/Emerging-Optimizers", known_as="radial brake"),
    Method("retract_by_stiefel", "manifold", "1810.00760", known_as="Riemannian Adam, Riemannian AMSGrad, Stiefel manifold"),
    Method("shrink_by_group_lasso", "proximal", "1608.03665", known_as="group lasso, structured sparsity, SSL"),
    Method("shrink_by_half_space", "proximal", "2107.07467", "tianyic/only_train_once", known_as="HSPG, OTO, Only Train Once"),
    Method("shrink_by_nonconvex", "proximal", "2009.10629", known_as="SCAD, MCP"),
    Method("round_by_error_correction", "rounding", "2602.23349", "databricks/flashoptim", known_as="FlashOptim weight splitting, ECC, 24-bit weights, mantissa buffer"),
    Method("round_by_kahan", "rounding", "2010.06192", "warner-benjamin/optimi", known_as="Kahan summation, compensated summation, optimi"),
    Method("round_by_master", "rounding", "1710.03740", "NVIDIA/apex", known_as="master weights, mixed precision training, fp32 master copy"),
    Method("round_by_stochastic", "rounding", "2010.06192", "pytorch/ao", known_as="stochastic rounding, SR, bf16_stochastic_round"),
    Method("route", "route", "none", "google-research/big_vision", known_as="parameter groups, partition, multi_transform, freeze, layer-wise rates, LLRD"),
    Method("share_norm", "route", "none", known_as="global norm over groups"),
    Method("mix", "mix", "none", "google/init2winit", known_as="weighted sum of optimizers, combine_by_sum, Parallel"),
    Method("graft", "mix", "2002.11803", "optimetry/optimetry", known_as="grafting, AdaGraft, learning rate grafting, Shampoo grafting"),
    Method("accumulate", "accumulate", "none", "google-deepmind/optax", known_as="gradient accumulation, MultiSteps, micro-batches"),
    Method("tune", "tune", "none", "google-deepmind/optax", known_as="inject_hyperparams, hyperparameters as state, learning rate control, population-based training"),
    Method("guard_by_finite", "guard", "none", "google-deepmind/optax", known_as="apply_if_finite, skip step, skip nan, gradient overflow check"),
    Method("guard_by_spike", "guard", "none", "allenai/OLMo-core", known_as="skip step, spike skipping, SkipStepOptimizer, loss spike"),
    Method("average_params_by_ema", "average_params", "10.1137/0330046", "google-deepmind/optax", known_as="EMA of weights, EMA of parameters, weight averaging, Polyak averaging"),
    Method("average_params_by_polynomial", "average_params", "1212.1824", "formll/dog", known_as="polynomial-decay averaging, SWA, Polyak-Ruppert averaging, stochastic weight averaging"),
    Method("average_params_by_window", "average_params", "2209.14981", known_as="LAWA, latest weight averaging, checkpoint averaging"),
    Method("reset_by_period", "reset", "2501.06842", "TianjinYellow/SPAM-Optimizer", known_as="SPAM, momentum reset"),
    Method("store_by_bfloat16", "codec", "1502.02551", "HomebrewML/HeavyBall", known_as="bf16 optimizer states, storage_dtype, mu_dtype"),
    Method("store_by_bfloat16_plus8", "codec", "2602.23349", "HomebrewML/HeavyBall", known_as="ECC states, bf16+8, 24-bit optimizer states"),
    Method("store_by_fp8", "codec", "2310.18313", "pytorch/ao", known_as="FP8 optimizer states, AdamWFp8, FP8-LM"),
    Method("store_by_int4", "codec", "2309.01507", "thu-ml/low-bit-optimizers", known_as="4-bit optimizer states, 4-bit Adam, AdamW4bit, low-bit optimizers, rank-1 normalization"),
    Method("store_by_int8", "codec", "2110.02861", "bitsandbytes-foundation/bitsandbytes", known_as="8-bit optimizer states, 8-bit Adam, AdamW8bit, bitsandbytes, FlashOptim"),
    Method("store_by_offload", "offload", "2101.06840", "apple/axlearn", known_as="optimizer state offloading, CPU offload, host offloading, ZeRO-Offload, pinned_host, optimizer_memory_host_offload"),
    Method("view_by_pattern", "view", "none", "arogozhnikov/einops", known_as="fused qkv, einops, matrix view, scanned layers"),
    Method("measure", "metrics", "none", "stanford-crfm/levanter", known_as="logging, monitoring, gradient norm, update norm, clipped fraction, wandb, TensorBoard"),
    Method("check_coordinates", "diagnostics", "2203.03466", "microsoft/mup", known_as="coordinate check, coord check"),
    Method("describe", "diagnostics", "none", known_as="cost table, state bytes, flops of an optimizer, summary"),
    Method("sweep_transfer", "diagnostics", "2203.03466", known_as="muTransfer, learning rate sweep"),
    Method("adabound", "recipe", "1902.09843", "Luolc/AdaBound", known_as="AdaBound"),
    Method("adagc", "recipe", "2502.11034", known_as="AdaGC"),
    Method("adam_atan2", "recipe", "2407.05872", known_as="Adam-atan2"),
    Method("adamomentum", "recipe", "2106.11514"),
    Method("adamp", "recipe", "2006.08217", "clovaai/AdamP", known_as="AdamP"),
    Method("adamw", "recipe", "1711.05101", "pytorch/pytorch"),
    Method("adamw_subset_norm", "recipe", "2411.07120", "timmytonga/sn-sm", known_as="AdamW-SN"),
    Method("adan", "recipe", "2208.06677", "sail-sg/Adan"),
    Method("ademamix", "recipe", "2409.03137", "apple/ml-ademamix", known_as="AdEMAMix"),
    Method("amsbound", "recipe", "1902.09843", "Luolc/AdaBound", known_as="AMSBound"),
    Method("amsgrad", "recipe", "1904.09237", "pytorch/pytorch"),
    Method("apollo", "recipe", "2412.05270", "zhuhanqing/APOLLO"),
    Method("apollo_mini", "recipe", "2412.05270", "zhuhanqing/APOLLO", known_as="APOLLO-Mini"),
    Method("diffgrad", "recipe", "1909.11015", "shivram1987/diffGrad"),
    Method("dion", "recipe", "2504.05295", "microsoft/dion"),
    Method("fira", "recipe", "2410.01623", "xichen-fy/Fira"),
    Method("galore", "recipe", "2403.03507", "jiaweizzhao/GaLore"),
    Method("grams", "recipe", "2412.17107", "Gunale0926/Grams"),
    Method("grass_jump", "recipe", "2510.01878", known_as="GrassJump"),
    Method("grass_walk", "recipe", "2510.01878", known_as="GrassWalk"),
    Method("gravity", "recipe", "2101.09192", "dariush-bahrami/gravity.optimizer"),
    Method("hspg", "recipe", "2107.07467", "tianyic/only_train_once", known_as="HSPG, OTO"),
    Method("innaprop", "recipe", "2410.05871", "innaprop/innaprop"),
    Method("lamb", "recipe", "1904.00962", known_as="LAMB"),
    Method("lars", "recipe", "1708.03888", known_as="LARS"),
    Method("lawn", "recipe", "2108.05839", known_as="LAWN"),
    Method("lion", "recipe", "2302.06675", "google/automl"),
    Method("lion_kappa", "recipe", "2310.05898", known_as="Lion-K, Lion-kappa"),
    Method("lorp", "recipe", "2412.19616", "Jhhuangkay/Gradient-Weight-normalized-Low-rank-Projection-for-Efficient-LLM-Training", known_as="GradNormLoRP"),
    Method("madgrad", "recipe", "2101.11075", "facebookresearch/madgrad"),
    Method("mars", "recipe", "2411.10438", "AGI-Arena/MARS"),
    Method("muon", "recipe", "2409.20325", "KellerJordan/Muon"),
    Method("normuon", "recipe", "2510.05491", "zichongli5/NorMuon", known_as="NorMuon"),
    Method("novograd", "recipe", "1905.11286", "NVIDIA/DeepLearningExamples"),
    Method("opt_amsgrad", "recipe", "1903.01435", known_as="OPT-AMSGrad"),
    Method("psgd", "recipe", "2402.11858", "lixilinx/psgd_torch", known_as="PSGD, Kron"),
    Method("random_scaled_sgdm", "recipe", "2405.09742", known_as="SGDM with random scaling"),
    Method("sgd", "recipe", "10.1016/0041-5553(64)90137-5", "pytorch/pytorch", known_as="SGD, momentum"),
    Method("sgdp", "recipe", "2006.08217", "clovaai/AdamP", known_as="SGDP"),
    Method("shampoo", "recipe", "1802.09568", "facebookresearch/optimizers"),
    Method("snsm", "recipe", "2411.07120", "timmytonga/sn-sm", known_as="SNSM"),
    Method("soap", "recipe", "2409.11321", "nikhilvyas/SOAP"),
    Method("stable_spam", "recipe", "2502.17055", "TianjinYellow/StableSPAM", known_as="Stable-SPAM, SPAM"),
    Method("zclip_adamw", "recipe", "2504.02507", "bluorion-com/ZClip", known_as="ZClip"),
)
# fmt: on
