"""The latent refiner: a diffusion model on codes that makes turned images agree with the one they were turned from."""
