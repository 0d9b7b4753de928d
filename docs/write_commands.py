"""Write docs/commands.md: every command as its own --help tells it.

python docs/write_commands.py
"""

from pathlib import Path

import click

from taichi_nerf.apps.main import main

WIDTH = {"max_content_width": 100, "terminal_width": 100}
PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Every command

As each one's `--help` tells it. This page is written by `python docs/write_commands.py`, and a test holds it to that.
All commands end with status 0; with 1 and one line on stderr where input is wrong, with 2 where the command line is; with 130
after Ctrl-C, 143 after SIGTERM, and 129 where the terminal was closed; `view`, which only these end, with 0.

"""


def commands(command: click.Command, context: click.Context):
    """(words, help) of every command that does something, in the order of their names."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            yield from commands(inner, click.Context(inner, info_name=name, parent=context, **WIDTH))
    else:
        yield context.command_path, command.get_help(context)


def page() -> str:
    root = click.Context(main, info_name="taichi-nerf", **{**main.context_settings, **WIDTH})
    found = list(commands(main, root))
    anchors = [f"[{name.removeprefix('taichi-nerf ')}](#{name.replace(' ', '-')})" for name, _ in found]
    parts = [f"## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, text in found]
    return HEAD + " · ".join(anchors) + "\n\n" + "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
