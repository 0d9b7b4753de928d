"""From a 2D GAN to view-consistent images: StyleGAN2, directions in its latent space, depth and pose, and the latent refiner."""
