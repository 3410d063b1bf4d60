"""Who may import whom, checked in the source of every module."""

import ast
import tomllib
from pathlib import Path

import pytest

import driftless
from torch_utils.shipped import FOLDERS

ROOT = Path(__file__).parents[1]

# package -> packages of ours that it may import; scripts, benchmarks, assets and tests: everything
ALLOWED: dict[str, set[str]] = {
    "torch_utils": set(),
    "diffusion": {"torch_utils"},
    "networks": {"torch_utils"},
    "data": {"torch_utils"},
    "metrics": {"torch_utils"},
    "losses": {"diffusion", "torch_utils"},
    "samplers": {"diffusion", "torch_utils"},
    "models": {"networks", "diffusion", "torch_utils"},
    "importers": {"models", "networks", "diffusion", "torch_utils"},
}
ALLOWED["generation"] = set(ALLOWED) - {"losses", "metrics"}
ALLOWED["scoring"] = set(ALLOWED) - {"losses", "generation"}
ALLOWED["training"] = set(ALLOWED) - {"generation"}
PACKAGES = [name for name in ALLOWED if list((ROOT / name).glob("*.py"))]
SCRIPTS = {"driftless", "train", "generate", "fid", "dataset_tool", "snapshot_tool"}


def imported(path: Path) -> list[tuple[str, bool]]:
    """(module, whether at import time) of every import in a file."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [(name, id(node) not in late) for name in names]
    return found


def modules(package: str) -> dict[str, Path]:
    """Module name -> file."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / package).rglob("*.py")
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    ours = set(ALLOWED) | SCRIPTS | {"tests", "benchmarks", "assets"}
    for module, path in modules(package).items():
        for name, _ in imported(path):
            top = name.split(".")[0]
            if top in ours and top != package:
                assert top in ALLOWED[package], f"{module} imports {name}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    files = {name: path for package in PACKAGES for name, path in modules(package).items()}
    graph = {
        name: {target for target, early in imported(path) if early and target in files}
        for name, path in files.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join([*path, name])}"
        if name not in done:
            for target in graph[name] - {name}:
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


# they write an archive of CIFAR's form themselves, and time the published way to read it
_UNPICKLE_THEIR_OWN = ("benchmarks.bench_dataset_tool", "benchmarks.published_data")


def test_only_safe_pickle_imports_pickle() -> None:
    for package in [*PACKAGES, "benchmarks", "assets"]:
        for module, path in modules(package).items():
            names = {name.split(".")[0] for name, _ in imported(path)}
            if module not in ("torch_utils.safe_pickle", *_UNPICKLE_THEIR_OWN):
                assert not names & {"pickle", "pickletools", "dill", "cloudpickle"}, module


def test_every_package_and_the_files_that_it_needs_are_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    ours = [path for name in PACKAGES for path in modules(name).values()]
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in ours}
    assert set(setuptools["packages"]) == packages | set(FOLDERS)
    assert set(setuptools["py-modules"]) == SCRIPTS
    assert set(driftless._PACKAGES) == set(PACKAGES)  # it looks for those that hide them
    targets = {target.split(":")[0] for target in project["project"]["scripts"].values()}
    assert targets == SCRIPTS - {"driftless"}
    shipped = {
        path.relative_to(ROOT)
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package).glob(pattern)
    }
    beside = [path for name in (*PACKAGES, *FOLDERS) for path in (ROOT / name).rglob("*.*")]
    files = {path.relative_to(ROOT) for path in beside if path.suffix not in (".py", ".pyc")}
    assert files == shipped
