"""Equations of docstrings, as text that a terminal can show."""

import re

SIGNS = {
    "alpha": "α",
    "beta": "β",
    "cdot": "*",
    "Delta": "Δ",
    "dots": "...",
    "ell": "l",
    "epsilon": "ε",
    "eta": "η",
    "gamma": "γ",
    "ge": ">=",
    "lambda": "λ",
    "langle": "⟨",
    "le": "<=",
    "left": "",
    "leftarrow": "<-",
    "lVert": "‖",
    "mu": "μ",
    "pi": "π",
    "psi": "ψ",
    "rangle": "⟩",
    "right": "",
    "rVert": "‖",
    "sigma": "σ",
    "sum": "Σ",
    "textstyle": "",
    "to": "->",
}
GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"  # braces, with one more level inside
ATOM = r"(\w+|‖[^‖()]*‖|⟨[^⟩()]*⟩)"  # what needs no parentheses in a fraction


def text(latex: str) -> str:
    r"""What a formula says, one line for each part set apart by `\quad`.

    >>> text(r"u_t = \frac{m_t / (1 - b_1^t)}{\sqrt{v_t} + \epsilon}")
    'u_t = (m_t / (1 - b_1^t)) / (sqrt(v_t) + ε)'
    """
    cases = r"\\begin\{cases\}(.*?)\\end\{cases\}"
    said = re.sub(cases, _cases, latex, flags=re.S)
    said = re.sub(r"\\(?:mathrm|text|mathbb)" + GROUP, r"\1", said)
    before = ""
    while before != said:  # from the inside out
        before = said
        said = re.sub(rf"\\[dt]?frac{GROUP}\s*{GROUP}", r"(\1) / (\2)", said)
        said = re.sub(r"\\sqrt\[(\w+)\]" + GROUP, r"(\2)^(1/\1)", said)
        said = re.sub(r"\\(sqrt|hat)" + GROUP, r"\1(\2)", said)
        said = re.sub(r"([_^])\{(\w+)\}", r"\1\2", said)
        said = re.sub(r"([_^])\{([^{}]*)\}", r"\1(\2)", said)
    said = re.sub(r",?\s*\\q?quad\s*", "\n\n", said)
    said = re.sub(r"\\([A-Za-z]+)", lambda m: SIGNS.get(m[1], m[1]), said)
    said = re.sub(r"\\[,;! ]", " ", said)
    said = re.sub(r"[\\{}]", "", said)
    said = re.sub(r"‖\s*(.*?)\s*‖", r"‖\1‖", said)
    said = re.sub(r"⟨\s*(.*?)\s*⟩", r"⟨\1⟩", said)
    said = re.sub(rf"\({ATOM}\) / \({ATOM}\)", r"\1/\2 ", said)
    said = re.sub(rf"\({ATOM}\) / ", r"\1 / ", said)
    said = re.sub(rf" / \({ATOM}\)", r" / \1", said)
    return "\n".join(" ".join(line.split()) for line in said.strip().split("\n\n"))


def _cases(found: re.Match[str]) -> str:
    said = []
    for row in re.split(r"\\\\", found[1]):
        value, _, when = row.partition("&")
        condition = when.replace("&", "").strip()
        said.append(
            f"{value.strip()} {'' if 'else' in condition else 'if '}{condition}"
        )
    return "(" + "; ".join(said) + ")"
