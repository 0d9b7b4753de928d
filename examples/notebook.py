# %% [markdown]
# # Train, look, and change a kernel
#
# A radiance field in a minute, then the same field through a kernel that is written here, in a cell.
# This page is `examples/notebook.py`, which runs as it is, too; `python examples/write_notebook.py` makes the notebook from it.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import taichi as ti
import torch

from taichi_nerf import start, swap
from taichi_nerf.kernels import compositing
from taichi_nerf.procedural import make_scene
from taichi_nerf.training import methods
from taichi_nerf.training.config import RunSettings, SceneSettings
from taichi_nerf.training.pictures import over, picture_of_view
from taichi_nerf.training.scene_files import open_scene
from taichi_nerf.training.trainer import Trainer

SECONDS, SIZE, N_VIEWS = 30, 100, 40  # of training; of pictures

backend = start("auto")  # cuda > metal > vulkan on a real GPU > cpu
print(backend.arch, backend.device_name)

# %% [markdown]
# ## A scene
#
# One of our own making; any folder that `taichi-nerf scene info` understands will do.

# %%
folder = Path(tempfile.mkdtemp()) / "scene"
make_scene("objects", folder, seed=3, n_views=N_VIEWS, n_val=0, n_test=2, size=SIZE, n_samples=2)
settings = SceneSettings(str(folder))
scene = open_scene(settings)

# %% [markdown]
# ## Training
#
# `methods.choose` fits every setting to the scene and says why. A step draws pixels, renders their rays, compares,
# and moves the weights.

# %%
config, notes = methods.choose(scene, settings, RunSettings(time_budget=SECONDS), backend.torch_device)
trainer = Trainer(config, scene, backend.torch_device)
trainer.warm_up()  # compiles, outside of the time
psnr = []
while not trainer.is_done:
    psnr.append(trainer.step().psnr)
print(f"{len(psnr)} steps, the last at {psnr[-1]:.1f} dB")
plt.plot(psnr)
plt.xlabel("step")
plt.ylabel("PSNR of the batch, dB")
plt.show()

# %% [markdown]
# ## A view that training never saw


# %%
def look():
    """The first test view over white."""
    view = int(scene.splits["test"][0])
    seen = picture_of_view(trainer.model.eval(), view, scene.cameras.sizes[view])
    return over(seen.color.cpu(), seen.opacity.cpu(), torch.ones_like(seen.color.cpu()))


as_trained = look()
plt.imshow(as_trained)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Another kernel
#
# Compositing that keeps the colors of a sample only as far as its ray is lit by how near it is: a torch in the camera's hand.
# The arguments are those of `kernels/compositing.py`; `swap` puts it in place, for the block.

# %%
A, B = ti.types.ndarray(ndim=1), ti.types.ndarray(ndim=2)


@ti.kernel
def by_torchlight(density: A, color: B, t0: A, t1: A, spans: B, back: B, stop: ti.f32, c: B, opacity: A, depth: A, w: A):
    for r in range(spans.shape[0]):
        for k in range(color.shape[1]):
            c[r, k] = 0
        opacity[r], depth[r] = 0, 0
        for i in range(spans[r, 0], spans[r, 0] + spans[r, 1]):
            t = (t0[i] + t1[i]) / 2
            w[i] = (1 - opacity[r]) * (1 - ti.exp(-density[i] * (t1[i] - t0[i])))
            opacity[r], depth[r] = opacity[r] + w[i], depth[r] + w[i] * t
            for k in range(color.shape[1]):
                c[r, k] += w[i] * color[i, k] * ti.min(1, ti.exp(-3 * (t - NEAR)))
        opacity[r] = 1  # what is not lit is black, not white


NEAR = float(picture_of_view(trainer.model, int(scene.splits["test"][0]), (SIZE, SIZE)).depth.flatten().topk(1).values) - 1.2

# %%
with swap(compositing, composite_rays=by_torchlight):
    by_light = look()
plt.imshow(torch.cat([as_trained, by_light], 1))
plt.axis("off")
plt.savefig("notebook.png", bbox_inches="tight")
plt.show()

# %% [markdown]
# `taichi-nerf view RUN --kernel compositing=FILE` does this while you look, and reads the file again whenever you save it.
