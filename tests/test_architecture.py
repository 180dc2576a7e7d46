"""Imports go one way, and importing the package or its command line costs nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

import zhuyi

SOURCE = Path(zhuyi.__file__).parent

# A part may import itself, the parts of the rows above its own, and what everything may import.
LAYERS = (
    {"nn"},
    {"models", "decoding", "data", "metrics"},
    {"tasks"},
    {"config"},
    {"run_folder"},
    {"predict", "run_card"},
    {"visualize", "interop", "evaluation", "streams", "writing", "doctor"},
    {"training", "engines"},
    {"serving"},
    {"cli"},
    {"__main__"},
)
FREE = {"zhuyi", "zhuyi.errors", "zhuyi.atomic", "zhuyi.machine", "zhuyi.run_names", "zhuyi.data.special_tokens"}
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imported_modules(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """Every imported name with its line, also inside functions and under TYPE_CHECKING."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            # "from zhuyi import nn" imports zhuyi.nn; deeper down the part is in the origin already.
            for alias in node.names:
                yield (f"{origin}.{alias.name}" if origin == "zhuyi" else origin), node.lineno


def violations(code: str, module: str, is_package: bool = False) -> list[str]:
    found = []
    for imported, line in imported_modules(ast.parse(code), module, is_package):
        own, other = part_of(module), part_of(imported)
        if imported.split(".")[0] != "zhuyi" or imported in FREE or other == own or other not in RANK:
            continue
        if module in FREE or (own in RANK and RANK[other] >= RANK[own]):
            found.append(f"{module}, line {line}: imports {imported}")
    return found


def test_imports_go_one_way() -> None:
    found = [
        violation
        for path in sorted(SOURCE.rglob("*.py"))
        if module_name(path) != "zhuyi"
        for violation in violations(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_every_part_has_its_layer() -> None:
    parts = {part_of(module_name(path)) for path in SOURCE.rglob("*.py") if module_name(path) not in FREE}
    assert parts <= RANK.keys(), f"give {sorted(parts - RANK.keys())} a row in LAYERS, and in DESIGN's order"


@pytest.mark.parametrize(
    ("module", "code", "allowed"),
    [
        ("zhuyi.models.transformer", "from zhuyi.nn.attention import attend", True),
        ("zhuyi.models.transformer", "import zhuyi.nn", True),
        ("zhuyi.models.transformer", "from .gpt import GPT", True),
        ("zhuyi.models.transformer", "from zhuyi.decoding import search", False),
        ("zhuyi.nn.attention", "def f():\n    from zhuyi.models import MODELS", False),
        ("zhuyi.nn.attention", "from ..tasks import TASKS", False),
        ("zhuyi.nn.attention", "from zhuyi import training", False),
        ("zhuyi.nn.attention", "from zhuyi import __version__", True),
        ("zhuyi.decoding.search", "from zhuyi.data.special_tokens import EOS_ID", True),
        ("zhuyi.decoding.search", "from zhuyi.data.pairs import Pair", False),
        ("zhuyi.cli", "import zhuyi.serving, zhuyi.training.loop", True),
        ("zhuyi.errors", "from zhuyi.nn import masks", False),
    ],
)
def test_the_rule_itself(module: str, code: str, allowed: bool) -> None:
    assert (violations(code, module) == []) is allowed


HEAVY = ("matplotlib", "numpy", "pyarrow", "ray", "sacrebleu", "tensorboard", "tokenizers", "torch")


@pytest.mark.parametrize("module", ["zhuyi", "zhuyi.cli"])
def test_import_is_light(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not there")
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
