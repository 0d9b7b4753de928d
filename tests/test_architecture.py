"""Who may import whom, read from the source with `ast`. docs/architecture.md tells why."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [("taichi_nerf", ROOT / "taichi_nerf"), ("taichi_nerf.kernels", ROOT / "kernels")]
SOURCES += [("taichi_nerf.apps", ROOT / "apps"), ("taichi_nerf.benchmarks", ROOT / "benchmarks")]

# room: (our rooms it may import, packages of others it may import); the standard library is free to all.
RULES = {
    "kernels": (
        {"kernels.device_functions", "kernels.activations", "kernels.empty_space", "kernels.hash_grid_cells"}
        | {"kernels.procedural_shapes", "kernels.procedural_textures"}
        | {"kernels.occupancy_grid", "kernels.spherical_harmonics", "kernels.resident_rays"},
        {"taichi"},
    ),
    "bands": (set(), set()),
    "choices": (set(), set()),
    "file_error": (set(), set()),
    "optimiser": (set(), {"torch"}),
    "quoting": (set(), set()),
    "report": (set(), set()),
    "cameras": (set(), {"numpy"}),
    "curves": ({"cameras"}, {"numpy"}),
    "camera_path": ({"cameras", "choices"}, {"numpy"}),
    "trajectories": ({"cameras", "curves"}, {"numpy"}),
    "scenes": (
        {"bands", "cameras", "choices", "file_error", "report", "scenes"},
        {"numpy", "imageio", "imageio_ffmpeg", "pycolmap", "h5py"},
    ),
    "procedural": (
        {"procedural", "ops", "runtime", "bands", "cameras", "rays", "scenes", "trajectories"},
        {"torch", "numpy", "imageio"},
    ),
    "ndc": ({"scenes.scene_data"}, {"torch"}),
    "fields": ({"fields", "ops", "rays", "runtime"}, {"torch"}),
    "samplers": ({"samplers", "fields", "ops", "rays", "random_numbers"}, {"torch"}),
    "weight_files": ({"file_error"}, {"torch"}),
    "weights": ({"weights", "weight_files", "fields", "file_error"}, {"torch", "numpy"}),
    "priors": (
        {"priors", "settings", "weight_files", "procedural", "scenes", "cameras", "file_error", "report"},
        {"torch", "numpy", "safetensors"},
    ),
    "generator": (
        {"generator", "__version__", "ops", "runtime", "cameras", "scenes", "procedural", "metrics", "training", "export"}
        | {"settings", "setting_values", "fields.image_encoder", "weight_files", "optimiser", "file_error", "report"},
        {"torch", "numpy", "imageio"},
    ),
    "rendering": ({"fields", "samplers", "ops", "rays", "random_numbers", "rooms", "later"}, {"torch"}),
    "settings": ({"setting_values"}, set()),
    "setting_values": (set(), set()),
    "rooms": ({"later"}, {"torch"}),
    "later": (set(), {"torch"}),
    "training": (
        {"training", "__version__", "fields", "samplers", "rendering", "losses", "metrics", "camera_rig", "ops", "rays"}
        | {
            "runtime",
            "bands",
            "choices",
            "file_error",
            "optimiser",
            "quoting",
            "report",
            "random_numbers",
            "rooms",
            "later",
            "settings",
            "setting_values",
            "cameras",
            "scenes",
            "export",
            "trajectories",
            "camera_path",
            "ndc",
            "weights",
            "priors",
            "few_view_losses",
            "resident",
        },
        {"torch", "numpy", "imageio", "trimesh"},
    ),
    "resident": (
        {"resident", "runtime", "launch", "kernels", "ops", "fields", "samplers", "rays", "rendering", "rooms", "camera_rig"}
        | {"optimiser"},
        {"torch"},
    ),
    "camera_rig": ({"cameras", "ops", "rays"}, {"torch", "numpy"}),
    "losses": ({"ops", "rays"}, {"torch"}),
    "few_view_losses": ({"ops", "rays"}, {"torch"}),
    "metrics": ({"bands", "weight_files"}, {"torch", "safetensors"}),
    "export": (
        {"export", "scenes", "bands", "cameras", "choices", "report", "trajectories"},
        {"torch", "numpy", "matplotlib", "imageio", "imageio_ffmpeg", "skimage", "trimesh"},
    ),
    "reference": ({"reference"}, {"torch"}),
    "rays": (set(), {"torch"}),
    "random_numbers": (set(), {"torch"}),
    "runtime": ({"kernels.probe"}, {"taichi", "torch", "numpy"}),
    "hotswap": ({"runtime", "launch", "ops", "reference", "kernels"}, {"torch"}),
    "live_kernels": ({"hotswap", "runtime", "reference", "kernels"}, {"torch"}),
    "viewer": (
        {"viewer", "training", "rendering", "fields", "camera_rig", "cameras", "curves", "trajectories", "camera_path", "scenes"}
        | {"export", "live_kernels", "rays"},
        {"torch", "numpy", "imageio", "viser", "websockets"},
    ),
    "launch": ({"runtime"}, {"taichi", "torch"}),
    "ops": ({"runtime", "launch", "rays", "kernels", "ops.door", "ops.once", "reference"}, {"torch"}),
    "demo": ({"training", "procedural", "export", "report"}, {"torch"}),
    "benchmarks": (None, {"torch", "numpy", "imageio", "trimesh"}),
    "apps": (None, {"click", "rich"}),
    "__init__": (None, set()),
    "__main__": ({"apps"}, set()),
}
OTHERS = set().union(*(others for _, others in RULES.values()))


def modules():
    for package, folder in SOURCES:
        for file in sorted(folder.rglob("*.py")):
            name = ".".join([package, *file.relative_to(folder).with_suffix("").parts])
            yield name.removeprefix("taichi_nerf."), file


def imports(file):
    """(module, imported names) of every import statement, at any depth of the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module, [alias.name for alias in node.names]


@pytest.mark.parametrize(("name", "file"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_only_what_its_room_may(name, file):
    room = name.split(".")[0]
    assert room in RULES, f"{name}: no rule for this room"
    ours, others = RULES[room]
    for module, names in imports(file):
        top = module.split(".")[0]
        if top == "taichi_nerf" and ours is not None:
            paths = [module.removeprefix("taichi_nerf").lstrip(".")]
            if module == "taichi_nerf" or module == "taichi_nerf.kernels":
                paths = [".".join([*paths[0].split("."), n]).lstrip(".") for n in names] or paths
            for path in paths:
                allowed = any(path == rule or path.startswith(rule + ".") for rule in ours) or path == name
                assert allowed, f"{name} imports {path}"
        elif top in OTHERS:
            assert top in others, f"{name} imports {top}"


def test_matplotlib_is_imported_by_the_two_files_that_draw_with_it():
    found = {
        name for name, file in modules() for module, _ in imports(file) if module.split(".")[0] in ("matplotlib", "mpl_toolkits")
    }
    assert found == {"export.plots", "export.training_plot"}


def test_viser_is_known_to_one_file_and_imported_when_it_is_needed():
    found = {name for name, file in modules() for module, _ in imports(file) if module.split(".")[0] in ("viser", "websockets")}
    assert found == {"viewer.server"}
    top = ast.parse((ROOT / "taichi_nerf/viewer/server.py").read_text()).body
    assert not [node for node in top if isinstance(node, ast.Import) and node.names[0].name.startswith(("viser", "websockets"))]


def test_no_kernel_is_taken_by_name():
    """`from …kernels.x import kernel` goes stale silently when a kernel is swapped or reloaded."""
    for name, file in modules():
        for module, names in imports(file):
            if module.startswith("taichi_nerf.kernels.") and not module.endswith(".device_functions"):
                pytest.fail(f"{name} takes {names} from {module} by name; import the module")


def test_taichi_is_initialised_in_one_place_and_its_autodiff_is_never_used():
    for name, file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ti":
                assert node.attr != "ad", f"{name}: Taichi's autodiff is wrong on Vulkan"
                assert node.attr != "field", f"{name}: a field dies with the next ti.init"
                assert node.attr != "init" or name == "runtime", f"{name}: ti.init outside runtime.py"


def test_every_family_has_its_four_files():
    from taichi_nerf.reference import FAMILIES

    for folder, prefix in (
        ("kernels", ""),
        ("taichi_nerf/ops", ""),
        ("taichi_nerf/reference", ""),
        ("tests/ops", "test_"),
    ):
        present = {file.stem for file in (ROOT / folder).glob(f"{prefix}*.py")}
        assert {prefix + family for family in FAMILIES} <= present, folder


def test_every_adjoint_stands_in_the_file_of_its_kernel():
    """And its name begins with that of the kernel, or of the argument whose gradient it is."""
    for file in (ROOT / "kernels").glob("*.py"):
        functions = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
        kernels = {node.name: {a.arg for a in node.args.args} for node in functions if node.decorator_list}
        primal = {name for name in kernels if "_adjoint" not in name}
        arguments = set().union(*(kernels[name] for name in primal))
        for name in kernels.keys() - primal:
            assert any(name.startswith(stem) for stem in primal | arguments), f"{file.name}: {name}"


def test_modules_that_some_systems_lack_are_imported_where_they_are_used():
    partial = {"msvcrt", "fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
    for name, file in modules():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not partial & set(imported), name
