"""Priors over pictures: a denoising diffusion model of small RGBD patches, and what it says about rendered ones (DiffusioNeRF).

prior = load_prior("builtin")
noise = prior.denoiser(patches, timesteps)      # [n, 4, 24, 24] in [-1, 1] → the noise in them
"""
