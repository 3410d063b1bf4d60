"""Foreign checkpoints as models of ours: nothing that they contain is executed."""
