"""Taichi kernels, one file per family, imported as `taichi_nerf.kernels`. Taichi and nothing else lives here.

Each kernel has its hand-written adjoint beside it, suffix `_adjoint`. Read `compositing.py` first.

What stands below spares Taichi's front end what it does for nothing: all commands start two to three seconds earlier.
"""

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from taichi.lang.ast.ast_transformer_utils import ASTTransformerContext

# Of each kernel and function Taichi asks whether it is defined inside of a class: of the code that runs the module, Python's
# own importing, `inspect` seeks the source in every module there is, some hundreds of times. It has none: said once.
inspect.modulesbyfile.setdefault("<frozen importlib._bootstrap>", "importlib._bootstrap")

# At each node of a kernel Taichi writes out its place in the source, for an error that may come; it passes most of them again and
# again, in every unrolled loop and every function that is called.
def _remembering(own: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    known: WeakKeyDictionary[Any, dict[Any, str]] = WeakKeyDictionary()  # of a function, which a reload may replace

    def place(context: Any, node: Any) -> str:
        places = known.setdefault(context.func.func, {})
        key = (type(node), node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        if key not in places:
            places[key] = own(context, node)
        return places[key]

    return place


if not hasattr(ASTTransformerContext, "remembers_places"):  # this file may itself be loaded anew
    ASTTransformerContext.get_pos_info = _remembering(ASTTransformerContext.get_pos_info)
    ASTTransformerContext.remembers_places = True
