"""`taichi-nerf backends`: which backends work on this machine, and if not, why."""

import json

import click

from taichi_nerf.apps.command import Command


@click.command(cls=Command)
@click.option("--benchmark", is_flag=True, help="Time the two implementations of small networks on each that works.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def backends(as_json: bool, benchmark: bool) -> None:
    """Tell which backends work here, on which device, what auto picks, and why the others do not work.

    Each is tried in a process of its own, so a broken driver cannot end this one.

    \b
    Example:
      taichi-nerf backends
      taichi-nerf backends --benchmark
    """
    from taichi_nerf import runtime

    probes = [runtime.probe(arch) for arch in runtime.PREFERENCE]
    picked = runtime.choose()
    networks = {p.arch: _networks_on(p.arch) for p in probes if p.works} if benchmark else {}
    if as_json:
        rows = [
            {"arch": p.arch, "works": p.works, "device": p.device_name, "reason": p.reason}
            | ({"networks_ms": networks[p.arch]} if p.arch in networks else {})
            for p in probes
        ]
        click.echo(json.dumps({"auto": picked, "backends": rows}, indent=1))
        return
    for found in probes:
        device = found.device_name + (" (emulated on the processor)" if found.is_software else "")
        click.echo(f"{found.arch:<8} {'works' if found.works else 'no':<6} {device if found.works else found.reason}")
    click.echo(f"auto picks {picked}")
    for arch, measured in networks.items():
        for name, times in measured.items():
            pair = ", ".join(f"{kind} {ms:.1f} ms" for kind, ms in times.items())
            click.echo(f"{arch:<8} {name}, 32,768 rows there and back: {pair}")


def _networks_on(arch: str) -> dict[str, dict[str, float]]:
    """Milliseconds of instant-ngp's two networks by either implementation (`field.mlp.implementation`)."""
    from taichi_nerf.fields.mlp import best_precision
    from taichi_nerf.fields.mlp_choice import measured
    from taichi_nerf.runtime import start

    precision = best_precision(start(arch).torch_device)
    measured.cache_clear()
    found = {f"{widths}": measured(widths, precision) for widths in ((32, 64, 16), (32, 64, 64, 3))}
    return {name.strip("()").replace(", ", "-"): times._asdict() for name, times in found.items()}
