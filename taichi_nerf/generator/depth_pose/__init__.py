"""Depth and relative pose from images alone, after Monodepth2 (Godard et al. 2019), with its parameters' names."""
