"""What the figures in README and RESULTS.md were measured with; imported as `taichi_nerf.benchmarks`."""
