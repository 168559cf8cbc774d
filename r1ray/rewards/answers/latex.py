"""Surface form of LaTeX and plain text: the one place where spelling is evened out before answers are compared.

`cleaned` reduces a text to this form; all steps are linear in its length:

    brackets       \\left, \\right, \\big and their kind are dropped; so are \\displaystyle, \\limits, \\! and colours
    spaces         \\, \\; \\: \\  \\quad ~ and Unicode spaces become one space
    wrappers       \\boldsymbol{x}, \\mathbf x, \\underline{x}, \\num{x}, \\boxed{x} become {x}; braces around all of it go
    text           \\textbf, \\mathrm, \\textnormal, \\mbox, \\si and their kind become \\text{...}; \\qty{5}{kg} is
                   5\\text{kg}; \\text{} around a number or nothing is dropped
    fractions      \\dfrac, \\tfrac, \\cfrac, \\nicefrac, \\sfrac become \\frac
    symbols        π, ≤, −, ×, full-width digits and brackets, ... become their LaTeX or ASCII forms
    degrees        ^\\circ, ^{\\circ}, \\degree, \\si{\\degree} become °
    dots           ..., …, \\ldots, \\cdots become \\dots
    cases          the lines of a cases or aligned environment are separated by commas
    delimiters     $...$, \\(...\\), \\[...\\], **...** around it, a leading ≈ and a final full stop are dropped
"""

from __future__ import annotations

import re

_TEXT_NAMES = """text textbf textit textrm textsf texttt textup textnormal textmd textsc textsl emph mbox hbox mathrm
    operatorname rm si unit"""
_TRANSPARENT_NAMES = """boldsymbol bm pmb mathbf mathit mathsf mathtt mathnormal underline ensuremath num boxed fbox
    uline"""
_DROPPED_NAMES = """left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle
    textstyle scriptstyle limits nolimits bf it sf tt mathstrut"""
TEXT_COMMANDS = frozenset(_TEXT_NAMES.split())
_TRANSPARENT = frozenset(_TRANSPARENT_NAMES.split())
_COLOURS = frozenset(("color", "textcolor", "colorbox"))
_DROPPED = frozenset(_DROPPED_NAMES.split())
_FRACTIONS = frozenset(("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"))
_RENAMED = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lor": "vee", "land": "wedge", "lbrace": "{",
    "rbrace": "}", "lvert": "|", "rvert": "|", "vert": "|", "varnothing": "emptyset", "ldots": "dots", "cdots": "dots",
    "dotsc": "dots", "dotsb": "dots", "thickapprox": "approx", "simeq": "approx", "mod": "bmod", "lt": "<", "gt": ">",
    "infin": "infty", "colon": ":", "degree": "°", "celsius": "°C", "percent": "%", "backslash": "setminus",
}  # fmt: skip
_SYMBOLS = str.maketrans({
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≦": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "≧": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "∨": r"\vee ", "∧": r"\wedge ", "≡": r"\equiv ", "≈": r"\approx ", "≅": r"\cong ", "∠": r"\angle ", "△": r"\triangle ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ", "ℝ": r"\mathbb{R}",
    "−": "-", "–": "-", "—": "-", "﹣": "-", "∶": ":", "‘": "'", "’": "'", "′": "'", "…": r"\dots ", "º": "°", "˚": "°",
    "，": ",", "、": ",", "；": ";", "：": ":", "（": "(", "）": ")", "［": "[", "］": "]", "｛": r"\{", "｝": r"\}", "．": ".",
    "＋": "+", "－": "-", "＝": "=", "％": "%", "＜": "<", "＞": ">", "＄": "$", "₽": "₽", "\u2044": "/", "\u200b": None,
    "²": "^2", "³": "^3", **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
    **dict.fromkeys((0xA0, *range(0x2002, 0x200B), 0x202F, 0x3000), " "),
})  # fmt: skip
_TOKEN = re.compile(r"\\([A-Za-z]+)\*?[ \t\n]*|\\(.)|([{}])", re.DOTALL)
_ARGUMENT = re.compile(r"\s*(?:\{|(\\[A-Za-z]+|[A-Za-z0-9]))")
_SPACES = re.compile(r"[\s~]+")
_CIRCLE = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\s*\^\s*\{?°\}?")
_EMPTY_TEXT = re.compile(r"\\text\{\s*([\d\s.,:/%+-]*)\s*\}")
_WHOLE = re.compile(r"(?:\\text\s*)?\{")
_LOOSE_BRACES = re.compile(r"(?<![\\^_}\]\w])\{(\s*[\d.][\d.,\s]*)\}(?![\s]*\{)")
_CASES = re.compile(r"(?:\\\{)?\s*\\begin\{(cases|aligned|align|gathered)\*?\}(.*?)\\end\{\1\*?\}", re.DOTALL)
_ARRAY = re.compile(r"([(\[]|\\\{)\s*\\begin\{array\}\s*(?:\{[lcr|\s]*\})?(.*?)\\end\{array\}\s*[)\].]?", re.DOTALL)
_DOUBLED = re.compile(
    r"\\\\(?=(?:[dt]?frac|sqrt|pi|left|right|text|boxed|cdot|times|infty|cup|le|ge|ne|circ|mathrm)(?![a-z]))"
)
"""Backslashes that were escaped twice; in a matrix a command may follow the end of a row."""
_LEADING = re.compile(r"(?:\\approx|\\sim|\\therefore|\\implies|\\Rightarrow|\\colon|=|:)\s*(?![A-Za-z=])")
_MARKS = "*_`"
_WRAPS = (("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_NEEDLESS = re.compile(r"(?<!\d[.,])(?:(?<=[_^])\s+|(?<![A-Za-z])\s+(?=[^\d])|(?<=[^\w\s])\s+|\s+(?=[^\w\s]))")
"""Spaces that no number and no word needs: `1, 234` keeps its own."""
_PREFIX = re.compile(r"\\(kilo|centi|milli|micro|nano|mega|giga|deci|hecto)\s*\\?")


def cleaned(text: str) -> str:
    """The text in the form that the module describes."""
    text = text.translate(_SYMBOLS)
    text = _undelimited(text.strip())
    if "\\" in text or "{" in text:
        if "\\begin" not in text:
            text = _DOUBLED.sub(r"\\", text)
        text = _EMPTY_TEXT.sub(r" \1", _rewritten(text))
        text = _CASES.sub(lambda found: _lines(found[2]), _ARRAY.sub(_matrix, text))
        text = _CIRCLE.sub("°", text)
        text = _LOOSE_BRACES.sub(r"\1", text)
    elif "°" in text:
        text = _CIRCLE.sub("°", text)
    text = _SPACES.sub(" ", text.replace("...", r"\dots ")).strip()
    text = _undelimited(text)
    while (opened := _WHOLE.match(text)) and _closing(text) == len(text) - 1:
        text = text[opened.end() : -1].strip()
    if leading := _LEADING.match(text):
        text = text[leading.end() :]
    if text.endswith((".", ",", ";", "。")) and not text.endswith(".."):
        text = text[:-1].rstrip()
    return text


def squeezed(text: str) -> str:
    """A cleaned text without parts that carry no meaning: spaces, braces around one character, `\\text`."""
    text = text.replace(r"\text", "")
    text = re.sub(r"\{\s*(\w|\\[A-Za-z]+)\s*\}", r" \1 ", text)
    text = _NEEDLESS.sub("", text.strip())
    return _SPACES.sub(" ", text)


def _undelimited(text: str) -> str:
    for left, right in _WRAPS:
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            text = text[len(left) : -len(right)].strip()
    if len(text) > 2 and text[0] == "$" and text[-1] == "$" and text[-2] != "\\":
        text = re.sub(r"(?<!\\)\$", " ", text).strip()
    if "\\(" in text or "\\)" in text:
        text = re.sub(r"(?<!\\)\\[()]", " ", text).strip()
    return text


def _closing(text: str) -> int:
    """The place of the brace that closes the one at the front; -1 if none does."""
    depth = 0
    for found in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if found.group() == "{":
            depth += 1
        elif found.group() == "}":
            depth -= 1
            if depth == 0:
                return found.start()
    return -1


def _matrix(found: re.Match[str]) -> str:
    if found[1] == "\\{":
        return _lines(found[2])
    return rf"\begin{{pmatrix}}{found[2]}\end{{pmatrix}}"


def _lines(body: str) -> str:
    return ", ".join(line.strip(" ,.;") for line in body.replace("&", " ").split("\\\\") if line.strip())


def _rewritten(text: str) -> str:
    """One pass over commands and braces; `_Rewriter` holds the state."""
    out: list[str] = []
    closers: list[str] = []  # what replaces the closing brace of each open group
    at = 0
    while found := _TOKEN.search(text, at):
        out.append(text[at : found.start()])
        at = found.end()
        command, symbol, brace = found.groups()
        if command is not None:
            at = _command(text, found, command, out, closers)
        elif symbol is not None:
            out.append(_escaped(symbol))
            while symbol == "!" and text[at : at + 1] == " ":  # 32,\\! 450
                at += 1
        elif brace == "{":
            out.append("{")
            closers.append("}")
        elif closers:
            closer = closers.pop()
            out.append("}")
            if closer == "qty":  # the unit follows
                unit = _ARGUMENT.match(text, at)
                if unit and unit[1] is None and (end := text.find("}", unit.end())) > 0:
                    out.append(rf"\text{{ {_si(text[unit.end() : end])}}}")
                    at = end + 1
        else:
            out.append("}")
    out.append(text[at:])
    return "".join(out)


def _escaped(symbol: str) -> str:
    if symbol in ",;: \n\t>":
        return " "
    if symbol in "!%":
        return symbol.replace("!", "")
    return "\\" + symbol


def _command(text: str, found: re.Match[str], command: str, out: list[str], closers: list[str]) -> int:
    """Write what replaces a command; returns where reading continues."""
    at = found.end()
    if command in ("quad", "qquad", "hspace", "enspace", "thinspace", "space"):
        out.append(" ")
    elif command in _FRACTIONS:
        out.append(r"\frac")
    elif command in _DROPPED:
        if text.startswith(".", at) and command in ("left", "right"):  # \left. shows nothing
            at += 1
    elif command in _COLOURS:
        colour = re.compile(r"\s*(?:\[\w*\])?\{[^{}]*\}").match(text, at)
        at = colour.end() if colour else at
    elif command in _TRANSPARENT or command in TEXT_COMMANDS or command in ("qty", "SI"):
        head = r"\text" if command in TEXT_COMMANDS else ""
        argument = _ARGUMENT.match(text, at)
        if argument is None or command == "rm":
            return at
        if argument[1] is not None:  # \mathbf x
            out.append(f" {argument[1]} " if not head else f" {argument[1]}")
        else:
            if command in ("si", "unit") and (end := text.find("}", argument.end())) > 0:
                out.append(rf"\text{{ {_si(text[argument.end() : end])}}}")
                return end + 1
            out.append(head + "{")
            closers.append("qty" if command in ("qty", "SI") else "}")
        at = argument.end()
    else:
        renamed = _RENAMED.get(command, command)
        if renamed in ("{", "}"):
            out.append("\\" + renamed)
        elif renamed == command or renamed.isalpha():
            out.append(rf"\{renamed}" + (" " if text[at - 1 : at].isspace() or text[at : at + 1].isalpha() else ""))
        else:
            out.append(renamed)
    return at


def _si(unit: str) -> str:
    """`km/h` of the siunitx form `\\kilo\\meter\\per\\hour`."""
    unit = _PREFIX.sub(r"\1", unit)
    return (
        unit.replace(r"\per", "/")
        .replace(r"\squared", "^2")
        .replace(r"\cubed", "^3")
        .replace("\\", " ")
        .replace("{}", "")
    )
