"""`taichi-nerf backends`: which backends work on this machine, and if not, why."""

import json

import click

from taichi_nerf.apps.command import Command


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def backends(as_json: bool) -> None:
    """Tell which backends work here, on which device, what auto picks, and why the others do not work.

    Each is tried in a process of its own, so a broken driver cannot end this one.

    \b
    Example:
      taichi-nerf backends
    """
    from taichi_nerf import runtime

    probes = [runtime.probe(arch) for arch in runtime.PREFERENCE]
    picked = runtime.choose()
    if as_json:
        rows = [{"arch": p.arch, "works": p.works, "device": p.device_name, "reason": p.reason} for p in probes]
        click.echo(json.dumps({"auto": picked, "backends": rows}, indent=1))
        return
    for found in probes:
        device = found.device_name + (" (emulated on the processor)" if found.is_software else "")
        click.echo(f"{found.arch:<8} {'works' if found.works else 'no':<6} {device if found.works else found.reason}")
    click.echo(f"auto picks {picked}")
