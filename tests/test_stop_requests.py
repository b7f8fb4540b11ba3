"""Which signals are one request to stop."""

from __future__ import annotations

import signal

import pytest

from spml_tf.system import stop_requests
from spml_tf.system.errors import Terminated


@pytest.fixture
def at(monkeypatch) -> list[float]:
    """What the clock says, in seconds."""
    now = [100.0]
    monkeypatch.setattr(stop_requests.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_and_a_parent_ask_once(at):
    """Ctrl-C reaches the whole group; who started the process passes it on as SIGTERM."""
    stop = stop_requests.StopRequests()
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        at[0] += 0.5
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGINT
        at[0] += 1
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
    assert stop.number == signal.SIGINT


def test_what_waits_for_others_to_end_is_not_stopped_twice(at):
    with stop_requests.raising():
        for number, error in ((signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)):
            with pytest.raises(error):
                signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            at[0] += 2


def test_a_signal_that_is_ignored_stays_so(at):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests.raising():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
