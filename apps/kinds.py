"""An option that takes some of a few kinds, between commas."""

import click


class Kinds(click.ParamType):
    """color,depth"""

    name = "list"

    def __init__(self, known: tuple[str, ...]):
        self.known = known

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        kinds = [part.strip() for part in str(value).split(",")]
        for kind in kinds:
            if kind not in self.known:
                self.fail(f"expected some of {', '.join(self.known)}, got {kind!r}", param, ctx)
        return kinds
