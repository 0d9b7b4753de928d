"""What users choose from by name: the options of commands, the settings of a run and the functions that obey both take the same.

Imports nothing heavy, since `--help` shows these names.
"""

from typing import Literal, get_args

Axes = Literal["auto", "file", "upright", "recentred", "spherified"]  # of scene units: scenes/axes.py
Background = Literal["white", "black", "random"]  # of pictures with alpha
Method = Literal["ngp", "nerf", "mipnerf", "mipnerf360"]
Protocol = Literal["spread", "even", "dtu"]  # by which few views are chosen: scenes/splits.py

AXES, BACKGROUNDS, METHODS, PROTOCOLS = map(get_args, (Axes, Background, Method, Protocol))
LEVELS = {"white": 1.0, "black": 0.0, "random": 0.5}  # of backgrounds, where one grey has to stand for them
LEAST_RATE, LARGEST_RATE = 0.01, 1000.0  # frames a second of a video
PATHS = ("orbit", "spiral", "interpolate", "test")  # of a camera; a file is one too
PICTURES = ("color", "depth", "opacity", "normals")  # that a camera takes of a run
