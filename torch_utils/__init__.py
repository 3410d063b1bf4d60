"""Small tools that know nothing of diffusion: errors, command lines, files, seeds, pictures."""
