"""What leaves the program: pictures, videos, meshes, point clouds and plots. Every file is there whole or not at all."""
