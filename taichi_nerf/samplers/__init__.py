"""Where along rays a field is looked at."""
