"""One of the forms of `sample_object_sets`."""

from sample_object_sets import make_nmr as make

__all__ = ["make"]
