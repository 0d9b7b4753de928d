"""StyleGAN2 in plain torch (Karras et al. 2020): networks, losses, augmentation, training, and the files that others publish.

Modules are named as in NVIDIA's PyTorch code, so a state dict of theirs is one of ours.
"""
