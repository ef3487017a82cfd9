"""How large the code is: tokens of ecglib and of its core, lines of the Snakefile and notebooks.

    python -m benchmarks.size     # part of `make lint`: fails where a limit is passed

Tokens are those of Python's tokenizer without comments, docstrings and line structure, so that
packing lines gains nothing.
"""

import ast
import io
import json
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = [layer.split(" | ") for layer in LAYERS[0]["layers"]]
CORE = {name for layer in LAYERS[LAYERS.index(["trainer"]) :] for name in layer}
STRUCTURE = {getattr(tokenize, name) for name in ("COMMENT", "NEWLINE", "NL", "INDENT", "DEDENT")}
STRUCTURE |= {tokenize.ENCODING, tokenize.ENDMARKER}
LIMITS = {
    "code tokens of ecglib": 85_900,
    "code tokens of the core with its ground": 11_000,
    "lines of the Snakefile": 160,
    "code lines of all notebooks": 680,
    "lines of the longest module": 350,
    "lines of the longest function": 60,
    "longest parameter list": 6,
}


def docstrings(tree) -> set[tuple[int, int]]:
    """Where the strings begin that stand for themselves."""
    nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Expr))
    return {
        (n.lineno, n.col_offset)
        for n in nodes
        if isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
    }


def tokens(source: str) -> int:
    """Code tokens of a file."""
    told = docstrings(ast.parse(source))
    words = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(word.type not in STRUCTURE and word.start not in told for word in words)


def functions(tree):
    """Functions of a file with their lines and number of parameters, `self` left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            named = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            few = len([name for name in named if name not in ("self", "cls")])
            yield node.name, node.end_lineno - node.lineno + 1, few


def notebook_lines() -> int:
    """Lines of code in all notebooks, without empty ones and comments."""
    count = 0
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(file.read_text())["cells"]:
            lines = "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else []
            count += sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)
    return count


def measure() -> dict[str, tuple[int, str]]:
    """Each measure, and where its largest value is."""
    sizes, longest, widest, modules = {}, (0, ""), (0, ""), (0, "")
    for file in sorted((ROOT / "ecglib").rglob("*.py")):
        source, name = file.read_text(), str(file.relative_to(ROOT))
        sizes[name] = tokens(source)
        modules = max(modules, (len(source.splitlines()), name))
        for function, lines, parameters in functions(ast.parse(source)):
            longest = max(longest, (lines, f"{name}: {function}"))
            widest = max(widest, (parameters, f"{name}: {function}"))
    core = sum(n for name, n in sizes.items() if name.split("/")[1].split(".")[0] in CORE)
    snakefile = len((ROOT / "Snakefile").read_text().splitlines())
    values = [(sum(sizes.values()), ""), (core, ""), (snakefile, ""), (notebook_lines(), "")]
    return dict(zip(LIMITS, [*values, modules, longest, widest], strict=True))


def main() -> int:
    """Print each measure beside its limit; 1 if one is passed."""
    passed = 0
    for name, (value, where) in measure().items():
        over = value > LIMITS[name]
        passed += over
        told = f"{name}: {value:,} (at most {LIMITS[name]:,})"
        print(told + (f" {where}" if where else "") + (" TOO MUCH" if over else ""))
    return min(passed, 1)


if __name__ == "__main__":
    sys.exit(main())
