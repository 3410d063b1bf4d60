"""Models as data: a config that says what to build, and snapshots that hold config and weights."""
