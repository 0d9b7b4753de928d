"""Networks that others published, from and to their files."""
