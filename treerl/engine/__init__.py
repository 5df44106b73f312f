"""The algorithm: trees, kernels, advantages, objectives; torch and numpy, no files, no terminal."""
