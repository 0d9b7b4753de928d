"""Ctrl-C, SIGTERM and the end of the terminal at the next step."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from taichi_nerf.training.interrupt import SECOND_AFTER, Stopped, StopSignals, ends

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
STATUSES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture(autouse=True)
def _handlers_stay():
    """No test may change what the signals do to the others. Shells start what runs in the background with Ctrl-C ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    after = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGINT, former)
    assert after == before


@pytest.mark.parametrize(("number", "status"), STATUSES)
def test_a_signal_is_noted_and_interrupts_nothing(number, status):
    with StopSignals() as stop:
        assert (stop.requested, stop.exit_status, stop.signal) == (False, 0, None)
        signal.raise_signal(number)
        assert (stop.requested, stop.exit_status, stop.signal) == (True, status, number)
    assert stop.requested


def test_a_second_ctrl_c_aborts_at_once_but_an_echo_of_the_first_does_not():
    now = [0.0]
    with StopSignals(lambda: now[0]) as stop:
        signal.raise_signal(signal.SIGINT)
        now[0] = SECOND_AFTER / 2
        signal.raise_signal(signal.SIGINT)
        assert stop.exit_status == 130
        now[0] = SECOND_AFTER
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_does_not_disturb_the_saving():
    now = [0.0]
    with StopSignals(lambda: now[0]) as stop:
        signal.raise_signal(signal.SIGTERM)
        now[0] = 100.0
        signal.raise_signal(signal.SIGTERM)
    assert stop.exit_status == 143


def test_former_handlers_return_even_after_an_error():
    with pytest.raises(OSError), StopSignals():  # noqa: PT011
        raise OSError


def test_a_signal_that_is_ignored_stays_ignored():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, former)


def test_in_another_thread_nothing_happens():
    seen = []

    def train():
        with StopSignals() as stop:
            seen.extend([signal.getsignal(number) for number in SIGNALS])
            seen.append(stop.requested)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [*(signal.getsignal(number) for number in SIGNALS), False]


def test_a_wish_to_stop_before_the_first_step_is_none_to_save():
    assert (ends(lambda: False, 0), ends(lambda: True, 1)) == (False, True)

    def asked_to_stop():
        signal.raise_signal(signal.SIGTERM)
        return True

    with pytest.raises(Stopped) as stopped, StopSignals():
        ends(asked_to_stop, 0)
    assert stopped.value.exit_status == 143


TRAIN = """
import sys, time
import click
from taichi_nerf.apps.command import Command
from taichi_nerf.apps.progress import progress
from taichi_nerf.training.interrupt import StopSignals

@click.command(cls=Command)
def train():
    with StopSignals() as stop, progress() as report:
        print("ready", flush=True)
        for step in range(600):
            report(step / 600, "training")
            time.sleep(0.05)
            if stop.requested and sys.argv[1] == "granted":
                break
            if stop.requested:
                print("noted", flush=True)
    print("saved", flush=True)
    sys.exit(stop.exit_status)
train([])
"""


def started(mode):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", TRAIN, mode], **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "status"), STATUSES)
def test_a_command_saves_and_exits_with_the_status_of_the_signal(number, status):
    process = started("granted")
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "saved\n")
    assert "Traceback" not in err


def test_a_command_that_does_not_stop_is_aborted_by_a_second_ctrl_c():
    process = started("never")
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "noted\n"
    time.sleep(SECOND_AFTER)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved" not in out
    assert err.endswith("interrupted\n")


def test_a_terminal_that_is_closed_keeps_nothing_from_being_saved(tmp_path):
    """What is still written to it fails, as when a connection breaks off."""
    terminal, inside = pty.openpty()
    code = TRAIN.replace('print("saved", flush=True)', f'print("saved", flush=True); open({str(tmp_path / "saved")!r}, "w")')
    process = subprocess.Popen([sys.executable, "-c", code, "granted"], stdout=inside, stderr=inside)
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.close(inside)
    os.close(terminal)
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(timeout=60) == 129
    assert (tmp_path / "saved").exists()


def test_under_nohup_a_command_goes_on():
    """nohup has it ignore the end of the terminal."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started("granted")
    finally:
        signal.signal(signal.SIGHUP, former)
    os.kill(process.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "saved\n"
    assert process.returncode == 143


def test_ctrl_c_saves_though_it_also_ended_who_reads_the_progress(tmp_path):
    """As in `taichi-nerf train … 2>&1 | tee log`, where Ctrl-C goes to both."""
    code = "import taichi_nerf.apps.progress as told\ntold.QUICK = 0\n" + TRAIN.replace("progress()", "progress(0.0)")
    code = code.replace('print("saved", flush=True)', 'open(sys.argv[2], "w")')
    reads, writes = os.pipe()
    command = [sys.executable, "-c", code, "granted", str(tmp_path / "saved")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writes)
    os.close(writes)
    assert process.stdout.readline() == b"ready\n"
    os.close(reads)
    time.sleep(0.3)  # of progress that goes nowhere
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 130
    assert (tmp_path / "saved").exists()
