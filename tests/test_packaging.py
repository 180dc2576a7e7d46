"""The package says one thing about itself: version, dependencies, pins, recipes."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import zhuyi

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def distribution_name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def declared(*, run_time_only: bool = False) -> set[str]:
    extras = [extra for name, extra in EXTRAS.items() if not (run_time_only and name in ("dev", "peers"))]
    requirements = sum(extras, PROJECT["dependencies"])
    return {distribution_name(requirement) for requirement in requirements} - {"zhuyi"}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_version_agrees() -> None:
    assert metadata.version("zhuyi") == zhuyi.__version__
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest is not None
    assert newest[1] == zhuyi.__version__


def test_every_declared_package_is_pinned() -> None:
    assert declared() <= constraints().keys()


def test_pins_satisfy_the_lower_bounds() -> None:
    pins = constraints()
    for requirement in sum(EXTRAS.values(), PROJECT["dependencies"]):
        name, _, bound = requirement.partition(">=")
        if bound:
            pin = pins[distribution_name(name)]
            assert [int(n) for n in re.findall(r"\d+", pin)] >= [int(n) for n in bound.split(".")], requirement


def test_the_extra_all_names_every_other_but_dev_peers_and_ray() -> None:
    (requirement,) = EXTRAS["all"]
    assert set(requirement.removeprefix("zhuyi[").removesuffix("]").split(",")) == EXTRAS.keys() - {
        "all",
        "dev",
        "peers",
        "ray",
    }


def test_every_import_of_the_source_is_declared() -> None:
    """A package that happens to be installed here is missing at the user's.

    What only compares, where it is installed, is declared as a peer.
    """
    compared = {"src/zhuyi/interop/probe.py: transformers", "src/zhuyi/interop/onnx_folder.py: onnxruntime"}
    provided_by = metadata.packages_distributions()
    undeclared = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names} - {"zhuyi"} - sys.stdlib_module_names:
                providers = {distribution_name(name) for name in provided_by.get(top, [top])}
                if not providers & declared(run_time_only=True):
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert undeclared == compared, sorted(undeclared ^ compared)


def test_every_recipe_parses_and_has_a_header() -> None:
    """The header comment says where the data come from, what the command was, and what it scored."""
    from zhuyi.config import read_recipe

    recipes = sorted((ROOT / "recipes").rglob("*.toml"))
    assert recipes
    for path in recipes:
        read_recipe(path)
        assert path.read_text(encoding="utf-8").startswith("#"), path


def test_the_wheel_has_every_file_of_the_source() -> None:
    """What lies beside the code is packed by patterns, which a file of a new kind would escape."""
    package = ROOT / "src" / "zhuyi"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "package-data"
    ]["zhuyi"]
    packed = {path for pattern in patterns for path in package.glob(pattern)} | set(package.rglob("*.py"))
    tracked = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert not [str(path) for path in tracked if path not in packed and path.parent not in packed]
