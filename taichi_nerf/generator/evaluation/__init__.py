"""How good turned images are: distances between sets, likeness to the source, agreement between views, and how far they turn."""
