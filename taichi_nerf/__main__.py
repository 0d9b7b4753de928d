"""`python -m taichi_nerf` is the command `taichi-nerf`."""

from taichi_nerf.apps.main import main

if __name__ == "__main__":
    main()
