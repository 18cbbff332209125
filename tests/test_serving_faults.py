"""What goes wrong between client and server: nothing is lost, doubled or out of order, or there is one clear line."""

import http.client
import itertools
import random
import signal
import threading
import time

import numpy as np
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

import serving_server as double

from keras_deartifact import engines, image, quantiser, restore, video
from keras_deartifact.engines.serving import client as inner
from keras_deartifact.engines.serving import errors, rest_transport, retries
from serving import client

SIDES = (96, 112)
TILE, MARGIN = 64, 16
TILES = len(image.tile_grid(*SIDES, TILE, MARGIN))


@pytest.fixture(scope="module")
def model(exported):
    """Loaded once; each test sets its faults."""
    return double.Model({1: exported})


@pytest.fixture(scope="module")
def server(model):
    with double.Server(model) as running:
        yield running


@pytest.fixture
def faulty(model):
    """`faulty(faults, ...)` makes the server fail from now on, counted from now on."""

    def use(faults, slow_seconds=0.0, every_seconds=0.0):
        model.requests.clear()
        model.faults, model.slow_seconds, model.every_seconds = faults, slow_seconds, every_seconds

    use({})
    yield use
    use({})


@pytest.fixture(scope="module")
def given(photo):
    frames = np.stack([photo(*SIDES, seed) for seed in range(2)])
    maps = np.random.default_rng(1).uniform(1, 6, (2, *quantiser.map_shape(*SIDES))).astype(np.float32)
    return image.to_float(frames), maps


@pytest.fixture(scope="module")
def expected(exported, given):
    return restore.restore_frames(engines.load(exported), *given, tile=TILE, margin=MARGIN, whole_pixels=0)


def _connect(address, **options):
    given = {"tile": TILE, "margin": MARGIN, "deadline_seconds": 60.0, "in_flight": 4, **options}
    return client.connect(double.NAME, address, **given)


def _failing(restorer, given):
    with pytest.raises(client.ServingError) as error:
        restorer(*given)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("in_flight", [1, 3, 64])
@pytest.mark.parametrize(
    "kinds", [("UNAVAILABLE",), ("DEADLINE_EXCEEDED",), ("UNAVAILABLE", "DEADLINE_EXCEEDED", "slow")]
)
def test_what_is_tried_again(server, model, faulty, given, expected, kinds, in_flight, seed):
    restorer = _connect(server.address, in_flight=in_flight)
    faults = double.seeded_faults(seed, kinds, 2 * TILES)
    faulty(faults, slow_seconds=0.2)
    np.testing.assert_array_equal(restorer(*given), expected)
    assert len(model.requests) == 2 * TILES + sum(kind != "slow" for kind in faults.values())


def test_rest_tries_the_same_again(server, model, faulty, given, expected):
    restorer = _connect(server.rest_address)
    faulty({1: "UNAVAILABLE", 2: "drop", 3: "DEADLINE_EXCEEDED", 5: "drop", 7: "slow"}, slow_seconds=0.2)
    frames, maps = given
    np.testing.assert_array_equal(restorer(frames[:1], maps[:1]), expected[:1])
    assert len(model.requests) == TILES + 4


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("RESOURCE_EXHAUSTED", "use smaller tiles or fewer in flight"),
        ("NOT_FOUND", "start again with one that it has now"),
        ("INTERNAL", "see the server's log"),
    ],
)
def test_what_is_not_tried_again(server, model, faulty, given, kind, advice, protocol):
    restorer = _connect(server.address if protocol == "grpc" else server.rest_address, in_flight=1)
    faulty({2: kind})
    message = _failing(restorer, given)
    assert message.startswith(f"127.0.0.1:{server.port if protocol == 'grpc' else server.rest_port} (")
    assert f"asked for 'network' of the model '{double.NAME}' version 1, failed with {kind} (" in message
    assert "made by the test" in message
    assert message.endswith(advice)
    assert len(model.requests) == 2


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize(
    ("kind", "what"),
    [("shape", "instead of float32 (1, 64, 64, 3)"), ("dtype", ""), ("nan", "not finite"), ("extra", "")],
)
def test_answers_that_are_wrong(server, model, faulty, given, expected, protocol, kind, what):
    restorer = _connect(server.address if protocol == "grpc" else server.rest_address, in_flight=1)
    faulty({1: kind})
    frames, maps = given[0][:1, :64, :64], given[1][:1, :4, :4]
    if (protocol, kind) == ("rest", "dtype"):
        # JSON knows no dtypes: whole numbers are what it was given.
        assert set(np.unique(restorer(frames, maps))) <= {0.0, 1.0}
    else:
        message = _failing(restorer, (frames, maps))
        assert "GARBAGE" in message
        assert what in message
    assert len(model.requests) == 1


def test_wrong_numbers_of_uint8(server, faulty, given):
    restorer = _connect(server.rest_address)
    frames = image.to_uint8(given[0])[:1, :64, :64]
    faulty({1: "shape"})
    assert "instead of uint8 (1, 64, 64, 3)" in _failing(restorer, (frames, given[1][:1, :4, :4]))


def test_numbers_beyond_all():
    with pytest.raises(errors.Failure, match="GARBAGE: outputs that are no numbers"):
        rest_transport._array([[10**400]], np.float32)


def test_pauses_grow(server, model, faulty, given, expected):
    restorer = _connect(server.address)
    faulty(dict.fromkeys(range(1, 6), "UNAVAILABLE"))
    frames, maps = given[0][:1, :64, :64], given[1][:1, :4, :4]
    restorer(frames, maps)
    pauses = np.diff([request.seconds for request in model.requests])
    assert len(pauses) == 5
    # 0.1 s, doubled each time, up to half of it off by chance; a busy machine makes them longer.
    for pause, longest in zip(pauses, 0.1 * 2.0 ** np.arange(5), strict=True):
        assert pause >= 0.99 * longest / 2
    assert pauses[-1] > pauses[0]


def test_delays():
    pauses = retries.delays(random.Random(0))
    found = np.array([next(pauses) for _ in range(2000)])
    longest = np.minimum(5.0, 0.1 * 2.0 ** np.minimum(np.arange(2000), 30))
    assert (found <= longest).all()
    assert (found >= longest / 2).all()
    assert found[10:].std() > 0.5
    assert not np.array_equal(found[:5], [next(retries.delays(random.Random(1))) for _ in range(5)])


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_patience_ends(server, model, faulty, given, protocol):
    restorer = _connect(server.address if protocol == "grpc" else server.rest_address, patience_seconds=1.0)
    faulty(dict.fromkeys(range(1, 1000), "UNAVAILABLE"))
    started = time.monotonic()
    message = _failing(restorer, given)
    # A minute is for busy machines.
    assert time.monotonic() - started < 60
    assert " tries in " in message
    # The last try has only what is left of the patience.
    assert "UNAVAILABLE" in message or "DEADLINE_EXCEEDED" in message
    assert 4 <= len(model.requests) <= 40
    # What was on its way arrives.
    time.sleep(0.3)
    count = len(model.requests)
    time.sleep(0.5)
    assert len(model.requests) == count, "the tiles that nobody waits for are given up"


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_deadline_for_each_request(server, model, faulty, given, expected, protocol):
    address = server.address if protocol == "grpc" else server.rest_address
    frames, maps = given[0][:1, :64, :64], given[1][:1, :4, :4]
    restorer = _connect(address, deadline_seconds=2.0)
    faulty({1: "slow"}, slow_seconds=6.0)
    # By the client's clock: on a busy machine the first request arrives late.
    started = time.monotonic()
    restorer(frames, maps)
    assert len(model.requests) == 2
    assert 1.9 < model.requests[1].seconds - started
    restorer = _connect(address, deadline_seconds=0.2, patience_seconds=1.0)
    faulty(dict.fromkeys(range(1, 1000), "slow"), slow_seconds=1.5)
    message = _failing(restorer, (frames, maps))
    assert "DEADLINE_EXCEEDED" in message
    assert message.endswith("give it a longer deadline, fewer tiles in flight, or smaller tiles")


def test_the_first_failure_ends_what_is_under_way(server, model, faulty, given):
    restorer = _connect(server.address, in_flight=4)
    # The first one fails when the others wait for 30 s.
    faulty({1: "INTERNAL", **dict.fromkeys(range(2, 100), "slow")}, slow_seconds=30.0)
    started = time.monotonic()
    assert "INTERNAL" in _failing(restorer, given)
    assert time.monotonic() - started < 20
    assert len(model.requests) <= 5
    faulty({})
    # The client is as good as new.
    frames, maps = given[0][:1, :64, :64], given[1][:1, :4, :4]
    assert restorer(frames, maps).shape == frames.shape


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_cancelling_wakes_who_waits(server, model, faulty, given, protocol):
    address = server.address if protocol == "grpc" else server.rest_address
    connection = inner.Client(client.Server(address), double.NAME)
    faulty({1: "slow"}, slow_seconds=30.0)
    inputs = {"images": given[0][:1, :32, :32], "quantiser_map": np.zeros((1, 2, 2, 1), np.float32)}
    cancellation = retries.Cancellation()
    ended = []

    def wait():
        with pytest.raises(errors.Cancelled):
            connection._predict("network", inputs, np.float32, cancellation)
        ended.append(time.monotonic())

    thread = threading.Thread(target=wait)
    started = time.monotonic()
    thread.start()
    while not model.requests:
        time.sleep(0.01)
    cancellation.cancel()
    thread.join()
    assert ended[0] - started < 20
    with pytest.raises(errors.Cancelled):
        connection._predict("network", inputs, np.float32, cancellation)
    connection.close()


def test_no_cancelling_after_the_block():
    """Its connection has another request then."""
    cancellation = retries.Cancellation()
    inside, leave, acting, go_on, left = (threading.Event() for _ in range(5))

    def act():
        acting.set()
        go_on.wait()

    def work():
        with cancellation.on_cancel(act):
            inside.set()
            leave.wait()
        left.set()

    threads = [threading.Thread(target=each) for each in (work, cancellation.cancel)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    acting.wait()
    leave.set()
    assert not left.wait(0.2)
    go_on.set()
    for thread in threads:
        thread.join()
    assert left.is_set()


def test_cancelling_a_client_that_connects(server, model, faulty, given, monkeypatch):
    connection = inner.Client(client.Server(server.rest_address), double.NAME)
    connection._transport.close()
    cancellation = retries.Cancellation()
    connect = http.client.HTTPConnection.connect

    def slowly(self):
        cancellation.cancel()
        connect(self)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", slowly)
    inputs = {"images": given[0][:1, :32, :32], "quantiser_map": np.zeros((1, 2, 2, 1), np.float32)}
    with pytest.raises(errors.Cancelled):
        connection._predict("network", inputs, np.float32, cancellation)
    assert model.requests == []
    connection.close()


def test_an_interrupt_while_tiles_are_handed_over(server, model, faulty, given, monkeypatch):
    connection = inner.Client(client.Server(server.address, tile=TILE, margin=MARGIN, in_flight=4), double.NAME)
    faulty(dict.fromkeys(range(1, 100), "slow"), slow_seconds=30.0)
    submit, calls = connection._pool.submit, itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == 4:
            while not model.requests:
                time.sleep(0.01)
            raise KeyboardInterrupt
        return submit(*arguments)

    monkeypatch.setattr(connection._pool, "submit", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        connection.restore(given[0], given[1][..., None])
    connection._pool.shutdown(wait=True)
    assert time.monotonic() - started < 20
    assert len(model.requests) <= 3
    connection.close()


def test_an_interrupt_ends_what_is_under_way(server, model, faulty, given):
    restorer = _connect(server.address)
    faulty(dict.fromkeys(range(1, 100), "slow"), slow_seconds=30.0)
    main = threading.get_ident()

    def interrupt():
        while not model.requests:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    started = time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        restorer(*given)
    thread.join()
    assert time.monotonic() - started < 20
    assert len(model.requests) <= 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_connections_that_break_in_the_middle(server, model, faulty, given, expected, seed):
    cuts = np.random.default_rng(seed).integers(100, 400_000, 4).tolist()
    # Of the first connection, so that what a client asks first has come through.
    with double.CuttingProxy(server.port, [20_000, *cuts]) as proxy:
        restorer = _connect(proxy.address)
        faulty({})
        np.testing.assert_array_equal(restorer(*given), expected)
        assert proxy.connections > 1
    assert len(model.requests) >= 2 * TILES


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_connection_on_which_nothing_comes_any_more(server, model, faulty, given, expected, protocol):
    """The machine at its other end is gone, and said no word."""
    port, scheme = (server.port, "") if protocol == "grpc" else (server.rest_port, "http://")
    with double.CuttingProxy(port, []) as proxy:
        restorer = _connect(scheme + proxy.address, deadline_seconds=3.0)
        restorer(*given)
        # No ping is under way, either.
        time.sleep(3.0)
        faulty({})
        proxy.mute()
        np.testing.assert_array_equal(restorer(*given), expected)
        assert proxy.connections > 1


def test_a_message_beyond_the_limit(exported, given):
    with double.Server(double.Model({1: exported}), most_bytes=40_000) as small:
        restorer = _connect(small.address, in_flight=1)
        message = _failing(restorer, given)
        assert "RESOURCE_EXHAUSTED" in message
        assert "49" in message
        assert "larger than max (49" in message
        assert message.endswith("use smaller tiles or fewer in flight")
        assert small.model.requests == []
        assert _connect(small.address, tile=48, margin=16)(*given).shape == given[0].shape


@pytest.fixture
def processes(exported):
    """A server that dies at its 20th request, and one that has loaded the model and waits to take its place."""
    made = [double.Process(exported, faults={20: "kill"})]
    try:
        port = made[0].go()
        made.append(double.Process(exported, port))
        yield port, *made
    finally:
        for each in made:
            each.close()


def test_a_video_while_the_server_restarts(processes, exported, make_video, tmp_path):
    port, first, second = processes
    source = make_video(tmp_path / "in.mkv", times=[0, 40, 80, 120, 160], size=(640, 352))
    options = {"tile": 256, "margin": 32, "in_flight": 4}
    restorer = _connect(f"127.0.0.1:{port}", patience_seconds=300.0, **options)

    def restart():
        first.process.wait()
        time.sleep(0.5)
        second.go()

    thread = threading.Thread(target=restart)
    thread.start()
    report = restore.restore_video(restorer, source, tmp_path / "there.mkv", codec="ffv1")
    thread.join()
    assert first.process.returncode == -signal.SIGKILL
    local = engines.load(exported)

    def here(frames, maps):
        return restore.restore_frames(local, frames, maps, tile=256, margin=32, whole_pixels=0)

    assert restore.restore_video(here, source, tmp_path / "here.mkv", codec="ffv1").frames == report.frames == 5
    there, by_itself = (
        [frame.image.to_ndarray() for frame in video.read_frames(tmp_path / name)] for name in ("there.mkv", "here.mkv")
    )
    np.testing.assert_array_equal(np.stack(there), np.stack(by_itself))
    # Of a video whose server stays away nothing is left.
    impatient = _connect(f"127.0.0.1:{port}", patience_seconds=1.0, **options)
    second.process.kill()
    second.process.wait()
    with pytest.raises(client.ServingError, match="UNAVAILABLE"):
        restore.restore_video(impatient, source, tmp_path / "never.mkv", codec="ffv1")
    assert not list(tmp_path.glob("*never*"))
