"""Coefficients of Newton-Schulz iterations: one triple `(a, b, c)` for each step.

A step maps every singular value $s$ to $a s + b s^3 + c s^5$. Before the first step each $s$ is
divided by the Frobenius norm. Each comment below states a smallest first $s$, and the range in
which all larger ones end; smaller ones end lower. A slice of a constant is a shorter iteration, a
sum of two a longer one.
"""

Coefficients = tuple[tuple[float, float, float], ...]

# Jordan and others, "Muon", steep at zero: above 1/650, from 0.68 to 1.21.
JORDAN: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5

# You, as in modded-nanogpt and Dion: above 1/650, from 0.69 to 1.15.
YOU: Coefficients = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

_OPTIMAL: Coefficients = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)

# Amsel and others, "The Polar Express", arXiv:2505.16932, Algorithm 1, with its safety factor:
# above 1/2000, from 0.999 to 1.001; the first five, above 1/650, from 0.87 to 1.13.
POLAR_EXPRESS: Coefficients = (
    *((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in _OPTIMAL),
    (1.875, -1.25, 0.375),
)

# Grishina and others, "Accelerating Newton-Schulz Iteration for Orthogonalization via
# Chebyshev-type Polynomials", arXiv:2506.10935, as in Emerging-Optimizers: above 1/1000, from
# 0.88 to 1.12. Steep at 1, so not for half precision.
CANS: Coefficients = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)

# DeepSeek-V4, as in Emerging-Optimizers: above 1/5000, from 0.999 to 1.001.
DEEPSEEK: Coefficients = JORDAN[:1] * 8 + ((2.0, -1.5, 0.5),) * 2

# Huang, "How Much Orthogonalization Does Muon Need?", arXiv:2606.00371, with two products a step
# instead of three: above 1/100, from 0.77 to 1.30.
CUBIC: Coefficients = (
    (3.3656576, -3.3420992, 0.0),
    (2.5744352, -1.4957376, 0.0),
    (2.5368962, -1.4312570, 0.0),
    (2.4418906, -1.2764040, 0.0),
    (2.2230472, -0.9630650, 0.0),
)
