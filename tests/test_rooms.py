"""The guess of how much room a rendering needs, which `Rooms` and the pipeline on the device share."""

from taichi_nerf.rooms import FORGOTTEN, MARGIN, guess


def test_half_as_much_again_as_the_last_one_took_for_as_many_rays():
    assert guess(100, 100, [4000, 0], None) == [6000, 0]
    assert guess(300, 100, [4000, 0], None) == [18_000, 0]


def test_it_never_grows_while_rays_double_and_have_a_third_of_the_samples_each():
    """And at the end it is what is needed, not what was."""
    n_rays, per_ray, room, sizes = 1000, 3**8, None, []
    for _ in range(8):
        room = guess(2 * n_rays, n_rays, [n_rays * per_ray], room)
        sizes += room
        n_rays, per_ray = 2 * n_rays, per_ray // 3
    assert sizes == sorted(sizes, reverse=True)
    for _ in range(40):
        room = guess(n_rays, n_rays, [n_rays * per_ray], room)
    assert room == [MARGIN * n_rays * per_ray]


def test_it_shrinks_slowly_with_the_samples_and_at_once_with_the_rays():
    assert guess(100, 100, [10], [5000]) == [FORGOTTEN * 5000]
    assert guess(25, 100, [10], [5000]) == [FORGOTTEN * 1250]
    assert guess(25, 100, [4000], [5000]) == [MARGIN * 1000]
