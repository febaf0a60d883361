"""Scenes on a Dask cluster: the same bytes, whatever happens to the workers."""

import itertools
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene_files import PlainPredictor, noise, write_scene
from terradapt.errors import ConfigError, MissingExtraError, SceneError
from terradapt.grid import Grid, Window
from terradapt.scene import PredictOptions, embedded, predict_scene
from terradapt.scene.cluster import Cluster, bands, environments, local_workers
from terradapt.scene.embedded import Embedded, paying_workers

pytest.importorskip("distributed")
pytest.importorskip("cryptography")
pytestmark = pytest.mark.filterwarnings("default")  # of worker processes that are killed

OPTIONS = PredictOptions(scores="uint8", batch=4)


class SlowPredictor(PlainPredictor):
    def predict(self, images):
        time.sleep(0.01)
        return super().predict(images)


def plain():
    return PlainPredictor(window=64)


def slow():
    return SlowPredictor(window=64)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    pixels = noise(2100, 500)
    pixels[:, 400:700] = 0
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return write_scene(path, pixels, nodata=0, tiled=True)


@pytest.fixture(scope="module")
def result(scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("result") / "map.tif"
    predict_scene(plain(), scene, out, OPTIONS)
    return out


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(0, 6), st.integers(1, 9))
def test_bands_are_whole_block_rows_of_the_region(height, skipped, workers):
    top = skipped * 512
    region = Window(top, 0, height, 100)
    found = bands(Grid(top + height, 100, 64, 48, block=512), region, workers)
    assert found[0].row == top
    assert found[-1].bottom == top + height
    assert all(b.row % 512 == 0 for b in found)
    assert all(a.bottom == b.row for a, b in itertools.pairwise(found))
    assert len(found) >= min(workers, -(-height // 512))


@pytest.fixture(scope="module")
def pool():
    with Cluster("local", plain, "plain", workers=2) as cluster:
        yield cluster


def listening(cluster):
    """The ports of this process and its children that belong to the cluster."""
    import psutil

    me = psutil.Process()
    own = {int(cluster._local.scheduler_address.rpartition(":")[2])}
    own |= {int(part.worker_address.rpartition(":")[2]) for part in cluster._local.workers.values()}
    ports = {
        c.laddr.port
        for process in (me, *me.children(recursive=True))
        for c in process.net_connections("tcp")
        if c.status == "LISTEN"
    }
    assert own <= ports
    return sorted(ports)


def test_nobody_without_the_key_reaches_a_port_of_the_workers(pool):
    """Whoever talks to a Dask port runs code as its owner; loopback is shared by all accounts."""
    from distributed import Client
    from distributed.security import Security

    assert pool.workers == 2
    ports = listening(pool)
    assert len(ports) == 5  # the scheduler, and a nanny and a worker twice: no pages
    stranger = Security.temporary()
    for port in ports:
        for address, security in ((f"tcp://127.0.0.1:{port}", None),
                                  (f"tls://127.0.0.1:{port}", stranger)):  # fmt: skip
            with pytest.raises(OSError, match=r"Timed out|connect|reset|closed|certificate"):
                Client(address, timeout=2, security=security, set_as_default=False)
        for request in (b"GET /info/main/workers.html HTTP/1.0\r\n\r\n", b"\0" * 64):
            with socket.create_connection(("127.0.0.1", port), 5) as plain:
                plain.sendall(request)
                plain.settimeout(5)
                try:
                    said = plain.recv(4096)
                except (TimeoutError, ConnectionError):
                    said = b""
            assert not said.startswith(b"HTTP")
            assert b"worker" not in said


def test_local_processes_without_keys_are_not_started(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingExtraError, match="cluster"):
        Cluster("local", plain, "plain", workers=1)


def same(out, result):
    names = ("map.tif", "map_scores.tif")
    return all((out.parent / n).read_bytes() == (result.parent / n).read_bytes() for n in names)


def test_workers_give_the_same_bytes_as_one_process(scene, result, pool, tmp_path):
    out = tmp_path / "map.tif"
    predict_scene(plain(), scene, out, OPTIONS, blocks=pool.blocks)
    assert same(out, result)


def test_a_worker_that_sees_another_scene_is_told(scene, pool, tmp_path):
    out = tmp_path / "map.tif"
    other = write_scene(tmp_path / "scene.tif", noise(700, 500))

    def blocks(job, region, advance):
        write_scene(other, noise(900, 500))
        return pool.blocks(job, region, advance)

    with pytest.raises(SceneError, match="another file on a worker"):
        predict_scene(plain(), other, out, OPTIONS, blocks=blocks)


def test_no_scheduler_is_told():
    with pytest.raises(ConfigError, match=r"tcp://127\.0\.0\.1:9"):
        Cluster("tcp://127.0.0.1:9", plain, "plain", timeout=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_workers_killed_at_random_change_nothing(scene, result, tmp_path, seed):
    draw, killed = random.Random(seed), []
    with Cluster("local", slow, "slow", workers=2) as cluster:
        stop = threading.Event()

        def killer():
            while not stop.wait(draw.uniform(0.5, 1.5)) and len(killed) < 4:
                pids = [w.pid for w in cluster._local.workers.values() if w.pid]
                if pids:
                    os.kill(draw.choice(pids), signal.SIGKILL)
                    killed.append(pids)

        thread = threading.Thread(target=killer)
        thread.start()
        predict_scene(slow(), scene, tmp_path / "map.tif", OPTIONS, blocks=cluster.blocks)
        stop.set()
        thread.join()
    assert killed
    assert same(tmp_path / "map.tif", result)


def test_tasks_travel_by_pickle():
    from terradapt.cli.predict import open_predictor

    load = partial(open_predictor, "checkpoint.safetensors", engine="own", tta=True)
    assert pickle.loads(pickle.dumps(load)).args == load.args


def test_embedded_workers_start_once_when_there_is_work_and_give_the_same_bytes(
    scene, result, tmp_path, monkeypatch
):
    monkeypatch.setattr(embedded, "WINDOWS_PER_WORKER", 100)
    with Embedded(plain, "plain", cores=16) as pool:
        small = write_scene(tmp_path / "small.tif", noise(70, 70))
        predict_scene(plain(), small, tmp_path / "s.tif", OPTIONS, blocks=pool.blocks)
        assert pool._cluster is None
        out = tmp_path / "map.tif"
        predict_scene(plain(), scene, out, OPTIONS, blocks=pool.blocks)
        assert pool._cluster is not None
        assert pool._cluster.workers == 2
    assert same(out, result)


def test_one_process_is_enough_for_a_small_machine_or_one_gpu():
    assert [paying_workers(0, cores) for cores in (1, 2, 15, 16, 64)] == [1, 1, 1, 2, 8]
    assert [paying_workers(gpus, 64) for gpus in (1, 4)] == [1, 4]
    assert [local_workers(8), local_workers(2), local_workers(8, gpus=3)] == [2, 1, 3]


def test_every_worker_gets_a_gpu_that_this_process_sees():
    def of(*options):
        return [e.get("CUDA_VISIBLE_DEVICES") for e in environments(*options)]

    assert of(2, 0, "3") == [None, None]
    assert of(3, 2, "") == ["0", "1", "0"]
    assert of(2, 2, "5,7,9") == ["5", "7"]
