"""Who gets which picture when, with a clock and a renderer of the test's own."""

import numpy as np
import pytest

from taichi_nerf.viewer.eye import Eye, Wish
from taichi_nerf.viewer.looks import Part
from taichi_nerf.viewer.progressive import BAND, Progressive
from taichi_nerf.viewer.studio import Studio

EYE = Eye.of([0, 0, 0], [1, 0, 0, 0], 1, 1)
RATE = 1e5  # pixels a second that the renderer makes


class Looks:
    """Makes so many pixels a second, each the number of its row."""

    def __init__(self, clock):
        self.clock, self.calls = clock, []

    def refusal(self, what, crop):
        return "no grid here" if what == "occupancy" else None

    def rows(self, camera, first, last, what, crop, hasty):
        width = int(camera.sizes[0, 0])
        self.clock.now += (last - first) * width / RATE
        self.calls.append((int(camera.sizes[0, 1]), first, last, what, hasty))
        rows = np.arange(first, last) % 256
        return Part(
            np.broadcast_to(rows[:, None, None], (last - first, width, 3)).astype(np.uint8), np.ones((last - first, width))
        )


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def setting():
    clock = Clock()
    looks = Looks(clock)
    return Studio(lambda: looks, clock), looks, clock


def sit(studio, key, told=None):
    pictures = []
    studio.open(key, lambda part, wish, finished: pictures.append((part, wish, finished)), ([] if told is None else told).append)
    return pictures


def run(studio, clock, until, step=0.01):
    while clock.now < until:
        if not studio.work():
            clock.now += step


def test_the_first_picture_is_coarse_and_then_they_become_finer_up_to_the_whole(setting):
    studio, looks, clock = setting
    pictures = sit(studio, 1)
    studio.wish(1, Wish(EYE, height=300))
    run(studio, clock, 10)
    heights = [len(part.pixels) for part, _, _ in pictures]
    assert heights == sorted(heights)
    assert heights[0] < 200
    assert heights[-1] == 300
    assert [finished for *_, finished in pictures] == [False] * (len(pictures) - 1) + [True]
    assert pictures[-1][0].pixels[:, 0, 0].tolist() == [row % 256 for row in range(300)]  # every row once, in order
    assert [hasty for *_, hasty in looks.calls] == [True] + [False] * (len(looks.calls) - 1)


def test_a_finished_picture_is_left_alone(setting):
    studio, looks, clock = setting
    sit(studio, 1)
    studio.wish(1, Wish(EYE, height=64))
    run(studio, clock, 3)
    n = len(looks.calls)
    studio.wish(1, Wish(EYE, height=64))  # the same wish once more
    run(studio, clock, 6)
    assert len(looks.calls) == n
    studio.again()
    run(studio, clock, 9)
    assert len(looks.calls) > n


def test_what_is_rendered_at_once_takes_about_a_band_of_time(setting):
    studio, looks, clock = setting
    sit(studio, 1)
    studio.wish(1, Wish(EYE, height=512))
    run(studio, clock, 10)
    times = [(last - first) * height / RATE for height, first, last, _, hasty in looks.calls[3:]]
    assert max(times) < 2 * BAND


def test_a_camera_that_moves_gets_a_preview_of_every_place_and_its_finer_pictures_are_given_up(setting):
    studio, looks, clock = setting
    pictures = sit(studio, 1)
    for k in range(20):
        studio.wish(1, Wish(Eye.of([k, 0, 0], [1, 0, 0, 0], 1, 1), height=512, frames_per_second=10))
        run(studio, clock, (k + 1) * 0.1)
    assert len({wish.eye.position for _, wish, _ in pictures}) >= 15
    assert not any(finished for *_, finished in pictures)
    later = [height for height, *_, hasty in looks.calls[5:] if hasty]
    assert all(height * height / RATE <= 0.11 for height in later)  # each fits into its frame
    run(studio, clock, clock.now + 10)
    assert pictures[-1][2]
    assert pictures[-1][1].eye.position == (19, 0, 0)


def test_previews_come_no_faster_than_asked():
    clock = Clock()
    pictures = Progressive(clock)
    slow = [Wish(Eye.of([k, 0, 0], [1, 0, 0, 0], 1, 1), frames_per_second=2) for k in range(2)]
    pictures.step(
        slow[0], lambda wish, height, first, last, hasty: Part(np.zeros((last - first, height, 3), np.uint8), np.zeros(1))
    )
    assert not pictures.is_due(slow[1])
    clock.now += 0.5
    assert pictures.is_due(slow[1])


def test_two_browsers_share_the_work_fairly(setting):
    studio, _, clock = setting
    first, second = sit(studio, 1), sit(studio, 2)
    studio.wish(1, Wish(EYE, height=1000))
    studio.wish(2, Wish(EYE, height=1000))
    run(studio, clock, 60)
    assert first[-1][2]
    assert second[-1][2]
    assert [len(part.pixels) for part, *_ in first] == [len(part.pixels) for part, *_ in second]


def test_a_browser_that_goes_away_frees_its_work(setting):
    studio, looks, _ = setting
    sit(studio, 1)
    studio.wish(1, Wish(EYE, height=2000))
    assert studio.work()
    studio.close(1)
    n = len(looks.calls)
    assert not studio.work()
    studio.wish(1, Wish(EYE, height=100))  # a last message of one that is gone
    assert not studio.work()
    assert len(looks.calls) == n


def test_what_a_model_cannot_show_is_told_once_and_colors_are_shown(setting):
    studio, looks, clock = setting
    told = []
    sit(studio, 1, told)
    studio.wish(1, Wish(EYE, what="occupancy", height=64))
    run(studio, clock, 3)
    assert told == ["no grid here"]
    assert {what for *_, what, _ in looks.calls} == {"color"}


def test_after_a_failure_the_picture_is_begun_anew(setting):
    studio, looks, clock = setting
    pictures = sit(studio, 1)
    studio.wish(1, Wish(EYE, height=64))
    rows, looks.rows = looks.rows, lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        studio.work()
    looks.rows = rows
    run(studio, clock, 5)
    assert pictures[-1][2]
