"""Training: config, loop, EMA, optimizer, run directory, logging."""
