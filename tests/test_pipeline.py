import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_deartifact import pipeline


def count(number, seen=None, closed=None):
    try:
        for index in range(number):
            if seen is not None:
                seen.append(index)
            yield index
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def assert_no_threads():
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deartifact")]


@pytest.mark.parametrize("number", [0, 1, 50])
def test_everything_passes_in_order(number):
    results, threads = [], set()

    def transform(item):
        threads.add(threading.current_thread())
        return 2 * item

    pipeline.overlap(count(number), transform, results.append)
    assert results == [2 * index for index in range(number)]
    assert threads <= {threading.current_thread()}
    assert_no_threads()


def test_the_producer_is_only_so_far_ahead():
    seen, ahead = [], []
    pipeline.overlap(count(50, seen), lambda item: ahead.append(len(seen) - item), lambda _: None, ahead=3)
    # The item itself, three in the queue, and the one that waits for a place there.
    assert max(ahead) <= 5


def fails(error):
    raise error


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("stage", ["produce", "transform", "consume"])
def test_an_error_of_a_stage_stops_the_others(stage, error):
    def produce():
        yield from count(3)
        if stage == "produce":
            fails(error)
        yield from count(1000)

    transform = (lambda item: fails(error)) if stage == "transform" else (lambda item: item)
    consume = (lambda item: fails(error)) if stage == "consume" else (lambda item: None)
    with pytest.raises(type(error)):
        pipeline.overlap(produce(), transform, consume)
    assert_no_threads()


def test_a_producer_that_is_stopped_is_closed_in_its_thread():
    closed = []
    with pytest.raises(RuntimeError, match="no"):
        pipeline.overlap(count(1000, closed=closed), lambda item: fails(RuntimeError("no")), lambda item: None)
    assert len(closed) == 1 and closed[0].startswith("deartifact")


def test_an_interruption_does_not_wait_for_a_stage(monkeypatch):
    monkeypatch.setattr(pipeline, "STOP_SECONDS", 0.05)
    free, busy = threading.Event(), threading.Event()

    def consume(item):
        busy.set()
        free.wait(30)

    def transform(item):
        if item:
            busy.wait(30)
            fails(KeyboardInterrupt())
        return item

    with pytest.raises(KeyboardInterrupt):
        pipeline.overlap(count(1000), transform, consume)
    assert pipeline.is_at_work()
    free.set()
    for thread in threading.enumerate():
        if thread.name.startswith(pipeline.THREAD_NAME):
            thread.join(30)
    assert not pipeline.is_at_work()


def test_an_interruption_while_the_stages_begin(monkeypatch):
    submit, begun = ThreadPoolExecutor.submit, []

    def interrupted(pool, stage, *arguments):
        if begun:
            raise KeyboardInterrupt
        begun.append(stage)
        return submit(pool, stage, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.overlap(count(1000), lambda item: item, lambda _: None)
    assert_no_threads()
