"""Radiance fields: positions and directions to density and color."""
