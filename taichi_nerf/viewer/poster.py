"""A picture that is in the page itself, so that the scene is there at once: without a GPU viser's page takes seconds to start.

It stands where the viewer's own first picture will stand, lets every click through, and goes when that picture has come.
"""

import base64

import imageio.v3 as imageio

from taichi_nerf.cameras import Array

COME = "picture-has-come"  # the class of an element that the panel adds
ROWS, ASPECT = 256, 2.5  # wide enough for most windows: a browser's height shows the whole height of a picture
WAIT = 30_000  # milliseconds until it goes by itself

POSTER = """</head><body><img id="poster" alt="" src="data:image/jpeg;base64,%(data)s" style="position: fixed; z-index: 1; top: 0;
left: 50%%; height: 100vh; transform: translateX(-50%%); pointer-events: none">
<script>
(() => {
  const poster = document.getElementById("poster"), root = document.documentElement;
  const go = () => { poster.remove(); observer.disconnect(); };
  const look = () => { if (document.querySelector(".%(come)s")) setTimeout(go, 800); };  // viser fades it in
  const observer = new MutationObserver(look);
  observer.observe(root, { childList: true, subtree: true });
  for (const kind of ["pointerdown", "wheel", "keydown"]) root.addEventListener(kind, go, { once: true, capture: true });
  setTimeout(go, %(wait)d);
})();
</script>
"""


def as_jpeg(picture: Array) -> bytes:  # [h, w, 3] bytes
    return imageio.imwrite("<bytes>", picture, extension=".jpeg", quality=85)


def with_poster(page: bytes, jpeg: bytes) -> bytes:
    """viser's page, whose one script is in its head: the body begins before that. A second <body> is passed over by browsers."""
    head, script, rest = page.partition(b"<script")
    poster = POSTER % {"data": base64.b64encode(jpeg).decode(), "come": COME, "wait": WAIT}
    return head + poster.encode() + script + rest
