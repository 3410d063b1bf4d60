"""Makes a process meet a poor file system: Python runs this first when the folder is on its path.

FAULTS lists calls and what they answer, e.g. `flock:ENOSYS,fsync_folder:EINVAL`; `home:` hides the
user and his home; `fsync_state:3` takes three seconds to flush a training state.
"""

import errno
import fcntl
import os
import pwd
import stat
import time


def _refusal(code):
    number = getattr(errno, code)

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


def _only_folders(refuse):
    original = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refuse()
        original(descriptor)

    return fsync


def _slow_for_states(seconds):
    original = os.fsync

    def fsync(descriptor):
        if "training-state-" in os.readlink(f"/proc/self/fd/{descriptor}"):
            time.sleep(seconds)
        original(descriptor)

    return fsync


def _unknown(*_):
    raise KeyError("getpwuid(): uid not found")


for fault in os.environ.get("FAULTS", "").split(","):
    call, _, code = fault.partition(":")
    if call == "flock":
        fcntl.flock = _refusal(code)
    elif call == "fsync_folder":
        os.fsync = _only_folders(_refusal(code))
    elif call == "fsync_state":
        os.fsync = _slow_for_states(float(code))
    elif call == "home":
        os.environ.pop("HOME", None)
        pwd.getpwuid = _unknown
    elif call:
        setattr(os, call, _refusal(code))
