"""Run a program of ours on pretended GPUs: `python -m tests.pretend train.py --device=cuda ...`."""

import argparse
import os
import sys

from tests.pretend.build import environment, why_not


def main() -> None:
    """Replace this process by the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.pretend", description=__doc__)
    parser.add_argument("--devices", type=int, default=1, help="how many are seen")
    parser.add_argument("--memory", type=float, default=80, help="GiB of each")
    parser.add_argument("--idle", action="store_true", help="kernels do nothing, values are zero")
    parser.add_argument("--waits", action="store_true", help="list where the host waited, and why")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="what follows python")
    options = parser.parse_args()
    reason = why_not()
    if reason is not None or not options.program:
        parser.error(reason or "name a program")
    if options.idle and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        parser.error("processes of a group exchange values: leave --idle out")
    memory = int(options.memory * 2**30)
    variables = environment(options.devices, computing=not options.idle, memory=memory)
    if options.waits:
        variables["PRETEND_WAITS"] = "1"
    os.execve(sys.executable, [sys.executable, *options.program], variables)


if __name__ == "__main__":
    main()
