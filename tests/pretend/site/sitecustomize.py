"""Found by every Python process of a pretended GPU at its start."""

import os
import sys

# launchers and helper processes compute nothing on a device
_HELPERS = ("torch.distributed.run", "from multiprocessing.")

if "LD_PRELOAD" in os.environ and not any(a.startswith(_HELPERS) for a in sys.orig_argv):
    import torch

    # not pretended: attention by flash kernels and by cuDNN
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    if "PRETEND_WAITS" in os.environ:
        from tests.pretend import events

        events.begin()
    if "PRETEND_COMPUTING" in os.environ:
        from tests.pretend import computing

        computing.begin()
