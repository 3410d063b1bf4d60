"""Programs that measure; what they measured is in results/.

Start them from the root of the repository: `python -m benchmarks.bench_training`.
"""

import os

from torch_utils import threads

_given = frozenset(os.environ)

# PyTorch reads how threads wait when it is loaded. With -m this file comes before the program,
# which loads PyTorch in its first lines; so a benchmark waits as the programs that it stands for
threads.set_defaults()
# variables that were set here, and not by the user
SET_HERE = frozenset(os.environ) - _given
