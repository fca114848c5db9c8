"""Equations of docstrings, as text that a terminal can show."""

import re
import textwrap

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
    "kappa": "κ",
    "lambda": "λ",
    "langle": "⟨",
    "le": "<=",
    "left": "",
    "lfloor": "⌊",
    "leftarrow": "<-",
    "lVert": "‖",
    "mu": "μ",
    "pi": "π",
    "psi": "ψ",
    "rangle": "⟩",
    "rfloor": "⌋",
    "right": "",
    "rVert": "‖",
    "sigma": "σ",
    "sim": "~",
    "sum": "Σ",
    "textstyle": "",
    "to": "->",
}
ACCENTS = {"bar": "\u0304", "hat": "\u0302"}  # which stand on the letter before
WIDTH = 76
GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"  # braces, with one more level inside
ATOM = (
    r"(\w+|‖[^‖()]*‖|⟨[^⟩()]*⟩|\|[^|()]*\|)"  # what needs no parentheses in a fraction
)


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
    said = re.sub(r"\\(bar|hat)\s*\\?([A-Za-z]+)", _accented, said)
    said = re.sub(r"\\([A-Za-z]+)", lambda m: SIGNS.get(m[1], m[1]), said)
    said = re.sub(r"\\[,;! ]", " ", said)
    said = re.sub(r"[\\{}]", "", said)
    said = re.sub(r"‖\s*(.*?)\s*‖", r"‖\1‖", said)
    said = re.sub(r"⟨\s*(.*?)\s*⟩", r"⟨\1⟩", said)
    said = re.sub(r"⌊\s*(.*?)\s*⌋", r"⌊\1⌋", said)
    said = re.sub(rf"\({ATOM}\) / \({ATOM}\)", r"\1/\2 ", said)
    said = re.sub(rf"\({ATOM}\) / ", r"\1 / ", said)
    said = re.sub(rf" / \({ATOM}\)", r" / \1", said)
    lines = (" ".join(line.split()) for line in said.strip().split("\n\n"))
    return "\n".join(line if len(line) <= WIDTH else _broken(line) for line in lines)


def _broken(line: str) -> str:
    """A long line in several: each case has its own."""
    filler = textwrap.TextWrapper(
        WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    first, *others = line.split("; ")
    return ";\n".join(filler.fill(p) for p in [first, *(f"    {p}" for p in others)])


def _accented(found: re.Match[str]) -> str:
    letter = SIGNS.get(found[2], found[2])
    return letter[0] + ACCENTS[found[1]] + letter[1:]


def _cases(found: re.Match[str]) -> str:
    said = []
    for row in re.split(r"\\\\", found[1]):
        value, _, when = row.partition("&")
        condition = when.replace("&", "").strip()
        said.append(
            f"{value.strip()} {'' if re.search('else|with', condition) else 'if '}{condition}"
        )
    return "(" + "; ".join(said) + ")"
