"""Programs that measure; what they measured is in results/."""
