"""The web viewer: a scene and what was learned of it, in a browser. `viser` carries it, and nothing else knows viser."""
