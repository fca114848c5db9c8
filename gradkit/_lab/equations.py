"""LaTeX equations of docstrings as plain text for a terminal."""

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
ACCENTS = {"bar": "\u0304", "hat": "\u0302"}  # combining characters, after a letter
WIDTH = 76
GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"  # braces, with one more level inside
# operands of a fraction without parentheses
ATOM = r"(\w+|‖[^‖()]*‖|⟨[^⟩()]*⟩|\|[^|()]*\|)"


def text(latex: str) -> str:
    r"""A formula as plain text, one line for each part separated by `\quad`.

    >>> text(r"u_t = \frac{m_t / (1 - b_1^t)}{\sqrt{v_t} + \epsilon}")
    'u_t = (m_t / (1 - b_1^t)) / (sqrt(v_t) + ε)'
    """
    cases = r"\\begin\{cases\}(.*?)\\end\{cases\}"
    out = re.sub(cases, _cases, latex, flags=re.S)
    out = re.sub(r"\\(?:mathrm|text|mathbb|operatorname)" + GROUP, r"\1", out)
    before = ""
    while before != out:  # from the inside out
        before = out
        out = re.sub(rf"\\[dt]?frac{GROUP}\s*{GROUP}", r"(\1) / (\2)", out)
        out = re.sub(r"\\sqrt\[(\w+)\]" + GROUP, r"(\2)^(1/\1)", out)
        out = re.sub(r"\\(sqrt|hat)" + GROUP, r"\1(\2)", out)
        out = re.sub(r"([_^])\{(\w+)\}", r"\1\2", out)
        out = re.sub(r"([_^])\{([^{}]*)\}", r"\1(\2)", out)
    out = re.sub(r",?\s*\\q?quad\s*", "\n\n", out)
    out = re.sub(r"\\(bar|hat)\s*\\?([A-Za-z]+)", _accented, out)
    out = re.sub(r"\\([A-Za-z]+)", lambda m: SIGNS.get(m[1], m[1]), out)
    out = re.sub(r"\\[,;! ]", " ", out)
    out = re.sub(r"[\\{}]", "", out)
    out = re.sub(r"‖\s*(.*?)\s*‖", r"‖\1‖", out)
    out = re.sub(r"⟨\s*(.*?)\s*⟩", r"⟨\1⟩", out)
    out = re.sub(r"⌊\s*(.*?)\s*⌋", r"⌊\1⌋", out)
    out = re.sub(rf"\({ATOM}\) / \({ATOM}\)", r"\1/\2 ", out)
    out = re.sub(rf"\({ATOM}\) / ", r"\1 / ", out)
    out = re.sub(rf" / \({ATOM}\)", r" / \1", out)
    lines = (" ".join(line.split()) for line in out.strip().split("\n\n"))
    return "\n".join(line if len(line) <= WIDTH else _broken(line) for line in lines)


def _broken(line: str) -> str:
    """Break a long line; each case is on its own line."""
    filler = textwrap.TextWrapper(
        WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    first, *others = line.split("; ")
    return ";\n".join(filler.fill(p) for p in [first, *(f"    {p}" for p in others)])


def _accented(match: re.Match[str]) -> str:
    letter = SIGNS.get(match[2], match[2])
    return letter[0] + ACCENTS[match[1]] + letter[1:]


def _cases(match: re.Match[str]) -> str:
    cases = []
    for row in re.split(r"\\\\", match[1]):
        value, _, when = row.partition("&")
        condition = when.replace("&", "").strip()
        cases.append(
            f"{value.strip()} {'' if re.search('else|with', condition) else 'if '}{condition}"
        )
    return "(" + "; ".join(cases) + ")"
