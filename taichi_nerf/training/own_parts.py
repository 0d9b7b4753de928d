"""What a run was trained with that no command can make: a model, or terms of the loss, of one's own. config.json names it.

about |= own_parts(model, terms)         # {"own": {"model": "BallModel", "terms": ["Pull"]}}, or nothing
expect_own_parts(folder, model, terms)   # RunError where the folder names what is not given
"""

from collections.abc import Sequence
from typing import Any

from taichi_nerf.training.model import Model
from taichi_nerf.training.run_folder import RunError, RunFolder
from taichi_nerf.training.terms import Term, name_of

HOW = "the commands do not know it; go on from Python (docs/extending.md)"


def own_parts(model: Model | None, terms: Sequence[Term]) -> dict[str, Any]:
    """What config.json says of them."""
    own = {"model": type(model).__name__} if model is not None and not _is_ours(model) else {}
    return {"own": {**own, "terms": [name_of(term) for term in terms]}} if own or terms else {}


def expect_own_model(folder: RunFolder) -> None:
    """Refuse to take a model of one's own for the method's: where names and sizes are the same, its numbers would fit."""
    name = _own(folder).get("model")
    if name is not None:
        raise RunError(folder.path, f"is of a model of one's own, {name}; {HOW}: load_run(…, make={name})")


def expect_own_parts(folder: RunFolder, model: Model | None = None, terms: Sequence[Term] = ()) -> None:
    """Refuse to train on without what the run was trained with."""
    if model is None:
        expect_own_model(folder)
    names = _own(folder).get("terms", [])
    if names and not terms:
        named = ", ".join(names)
        raise RunError(folder.path, f"was trained with terms of one's own, {named}; {HOW}: train(…, resume=True, terms=…)")


def _is_ours(model: Model) -> bool:
    return type(model).__module__.split(".")[0] == __name__.split(".")[0]


def _own(folder: RunFolder) -> dict[str, Any]:
    own = folder.read_config().get("own", {})
    return own if isinstance(own, dict) else {}
