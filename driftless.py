"""Driftless from Python: load a model, sample from it, train one.

    import driftless

    model = driftless.load("runs/demo/training")
    images = model.sample(range(16), label=3, steps=18)

This module only calls the packages beside it. They are imported with the first use, PyTorch too.
"""

import importlib.util
import sys
from pathlib import Path

_PACKAGES = (
    *("data", "diffusion", "importers", "losses", "metrics", "models", "networks", "samplers"),
    *("torch_utils", "training"),
)


def _found(name: str) -> str | None:
    """The file or folder that an import of a package gives, or has given; None if nothing does."""
    if name in sys.modules:
        module = sys.modules[name]
        return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), "")


def _refuse_foreign_packages() -> None:
    """Find out now, not in the middle of the work, whether another package takes a name of ours.

    Raises:
        ImportError: one does; it says which file, and what helps.
    """
    here = Path(__file__).resolve().parent
    for name in _PACKAGES:
        found = _found(name)
        if found is None:
            raise ImportError(f"{here} has no package {name} of Driftless: install it again")
        if Path(found).resolve() in (here / name, here / name / "__init__.py"):
            continue
        if name in sys.modules:
            advice = "it was imported before: use Driftless in a process that does not import it"
        else:
            advice = "rename it, or start Python in another folder"
        what = found or f"a module {name} without a file"
        raise ImportError(f"{what} hides the package {name} of Driftless, in {here}: {advice}")


_refuse_foreign_packages()

from torch_utils.errors import Failure, UserError  # noqa: E402 - which it might not find before

__all__ = ["Failure", "UserError"]
