"""What a training step of a recipe costs on a GPU, operation by operation.

`python -m tests.pretend.listing cifar10-uncond-ddpmpp run.precision=bf16`; see `ledger`.
"""

import argparse
import os
import sys

from tests.pretend.build import environment
from tests.pretend.counts import RECIPES, ledger


def main() -> None:
    """Print the costs, those of most launches first."""
    parser = argparse.ArgumentParser(prog="python -m tests.pretend.listing", description=__doc__)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("overrides", nargs="*", help="such as run.precision=bf16")
    parser.add_argument("--places", action="store_true", help="tell lines of ours apart")
    parser.add_argument("--unfused", action="store_true", help="by PyTorch's operations alone")
    options = parser.parse_args()
    if "PRETEND_LAZY" not in os.environ:
        command = [sys.executable, "-m", "tests.pretend.listing", *sys.argv[1:]]
        os.execve(sys.executable, command, environment())
    found = ledger(options.recipe, *options.overrides, is_fused=not options.unfused)
    rows = found.by_place() if options.places else found.by_operation()
    for name, cost in {"total": found.total(), **rows}.items():
        print(f"{cost.launches:6} launches  {cost.bytes / 1e9:8.3f} GB  {cost.calls:5} x {name}")


if __name__ == "__main__":
    main()
