import io
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom_file
from PIL import Image

from fundus.decoding import sandbox, sandbox_child
from fundus.decoding.picture import pictures
from fundus.decoding.sandbox import Decoder
from fundus.images.decode import Refused

PIXELS = np.random.default_rng(5).integers(0, 256, (60, 80, 3)).astype(np.uint8)


def png(pixels=PIXELS):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def refusal(decoder, data):
    with pytest.raises(Refused) as caught:
        decoder(data)
    return caught.value.status, caught.value.reason


@pytest.fixture
def decoder():
    with_short_patience = Decoder(timeout_s=5)
    yield with_short_patience
    with_short_patience.close()


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """Decoders whose child runs the test's code, which acts like a broken reader in C."""

    def decoder(code, **options):
        fake = tmp_path / "hostile_child.py"
        start = "from fundus.decoding import framing, sandbox_child\nimport os, signal, sys, time\n"
        fake.write_text(start + code + "\nsandbox_child.main()\n")
        monkeypatch.setattr(sandbox, "CHILD", "hostile_child")
        monkeypatch.syspath_prepend(str(tmp_path))
        return Decoder(**options)

    return decoder


def on_bad(action):
    """Code of a child that does `action` for bytes that begin with BAD and decodes others."""
    return f"""
real = sandbox_child.contents
calls = []
def broken(data, **options):
    calls.append(data)
    if data.startswith(b"BAD"):
        {action}
    return real(data, **options)
sandbox_child.contents = broken
"""


def gone(pid):
    """Whether the process has ended; a zombie has."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_pictures_and_refusals_are_those_of_decoding_without_a_child(decoder):
    (inside,), (outside,) = decoder(png()), pictures(png())
    assert (inside.pixels == outside.pixels).all() and inside.frame == outside.frame == 1
    assert refusal(decoder, b"some text")[0] == "unsupported"
    assert refusal(decoder, png()[:-300])[0] == "decode_failed"
    assert refusal(decoder, b"")[0] == "decode_failed"


def test_all_facts_of_a_dicom_object_come_through(decoder):
    data = dicom_file(np.stack([PIXELS, 255 - PIXELS]), "rle", ManufacturerModelName="Cam 5")
    options = {"subject_key": b"key", "keep_header": True}
    for inside, outside in zip(decoder(data, **options), pictures(data, **options), strict=True):
        assert (inside.pixels == outside.pixels).all()
        assert replace(inside, pixels=None) == replace(outside, pixels=None)
        assert inside.header and inside.subject and inside.laterality == "OD"
        assert inside.model == "Cam 5"


def test_one_child_serves_many_objects(decoder):
    decoder(png())
    pid = decoder._child.process.pid
    for _ in range(20):
        decoder(png())
    assert decoder._child.process.pid == pid


def test_a_reader_that_dies_is_a_refusal_and_the_next_object_is_read(hostile):
    decoder = hostile(on_bad("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert refusal(decoder, b"BAD") == ("crashed", "decoding ended its process (SIGSEGV)")
    assert (decoder(png())[0].pixels == PIXELS).all()


PREPARE = (
    "import socket; LINK = int(sys.argv[1]); L = socket.socket(fileno=os.dup(LINK)); "
    "HEAD = dict(height=1, width=1, frame=1, laterality=None, pixel_spacing=None, "
    "subject=None, manufacturer=None, model=None, header=None, flags=[], shrink=1, original=None); "
)


@pytest.mark.parametrize(
    "hang",
    [
        "while True: pass",
        "time.sleep(600)",
        PREPARE
        + 'framing.send(L, {"status": "ok", "pictures": [HEAD], "lost": []}, []); time.sleep(600)',
    ],
)
def test_a_reader_that_hangs_times_out_and_its_process_ends(hostile, monkeypatch, hang):
    monkeypatch.setattr(sandbox, "ASLEEP_S", 1.0)
    decoder = hostile(on_bad(hang), timeout_s=2)
    monkeypatch.setattr(sandbox, "PATIENCE", 1000)  # the wall-clock limit is out of reach
    decoder(png())
    pid = decoder._child.process.pid
    status, reason = refusal(decoder, b"BAD")
    assert status == "timed_out" and "2 s of the processor" in reason
    assert gone(pid)
    decoder(png())


def test_a_reader_that_waits_for_a_busy_machine_is_not_ended(hostile, monkeypatch):
    """A stopped process counts as waiting, not as sleeping."""
    monkeypatch.setattr(sandbox, "ASLEEP_S", 0.5)
    stop = "me = os.getpid(); os.fork() or (time.sleep(2), os.kill(me, 18), os._exit(0)); "
    decoder = hostile(on_bad(stop + "os.kill(me, signal.SIGSTOP)"), timeout_s=0.5)
    assert refusal(decoder, b"BAD")[0] == "unsupported"


def test_a_reader_that_answers_too_slowly_is_ended(hostile, monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 2)
    trickle = "while True: os.write(LINK, bytes(1)); time.sleep(0.01)"
    head = 'framing.send(L, {"status": "ok", "pictures": [HEAD | {"width": 9999}], "lost": []}, [])'
    decoder = hostile(on_bad(PREPARE + head + f"\n        {trickle}"), timeout_s=1)
    assert refusal(decoder, b"BAD")[0] == "timed_out"


def test_a_reader_that_exhausts_its_memory_is_a_refusal(hostile):
    decoder = hostile(on_bad("bytes(10 << 30)"), memory_bytes=1 << 30)
    status, reason = refusal(decoder, b"BAD")
    assert status == "too_large" and "1024 MiB" in reason
    vast = png(np.zeros((6500, 6500, 3), np.uint8))
    assert refusal(Decoder(memory_bytes=256 << 20), vast)[0] == "too_large"
    assert Decoder()(vast)[0].pixels.shape == (6500, 6500, 3)


@pytest.mark.parametrize(
    "answer",
    [
        'os.write(LINK, b"\\xff\\xff\\xff\\xff")',
        'os.write(LINK, b"\\0\\0\\0\\x02[]")',
        'framing.send(L, {"status": "healthy"}, [])',
        'framing.send(L, {"status": "ok", "pictures": [{}]}, [])',
        'framing.send(L, {"status": "ok", "pictures": [HEAD | {"height": 1 << 40}]}, [])',
        'framing.send(L, {"status": "ok", "pictures": [HEAD | {"laterality": "John"}]}, [])',
        'framing.send(L, {"status": "ok", "pictures": [HEAD | {"shrink": 3}]}, [])',
        'SMALL = {"shrink": 2, "original": (9, 2)}; '
        'framing.send(L, {"status": "ok", "pictures": [HEAD | SMALL]}, [])',
    ],
)
def test_a_malformed_answer_of_the_child_is_a_refusal(hostile, answer):
    decoder = hostile(on_bad(PREPARE + answer + "; time.sleep(600)"), timeout_s=20)
    assert refusal(decoder, b"BAD") == (
        "crashed",
        "decoding ended its process (it answered nonsense)",
    )


def test_the_result_does_not_depend_on_earlier_objects(hostile):
    """If an earlier object has corrupted a reader's memory, a new process tries again."""
    spoilt = "if len(calls) > 1: os.abort()"
    decoder = hostile(on_bad("").replace('if data.startswith(b"BAD"):', spoilt))
    for _ in range(3):
        assert (decoder(png())[0].pixels == PIXELS).all()


def test_the_child_knows_no_secret_and_prints_nothing(hostile, monkeypatch, capfd):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    show = "print('noise'); os.write(2, b'noise'); assert 'planted' not in str(dict(os.environ))"
    decoder = hostile(on_bad(show))
    assert refusal(decoder, b"BAD")[0] == "unsupported"
    out, err = capfd.readouterr()
    assert "noise" not in out + err


def test_a_child_that_cannot_start_is_an_error_not_a_row(monkeypatch):
    monkeypatch.setattr(sandbox, "CHILD", "no_such_module")
    with pytest.raises(RuntimeError, match="does not start"):
        Decoder()(png())


def test_no_child_outlives_a_parent_that_is_killed(tmp_path):
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from fundus.decoding.sandbox import Decoder
decoder = Decoder()
try:
    decoder(b"text")
except Exception:
    print(decoder._child.process.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path)
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def test_a_hanging_child_that_nobody_ends_is_ended_by_the_kernel(hostile):
    decoder = hostile(on_bad("while True: pass") + "\nsandbox_child.GRACE_S = 1", timeout_s=1)
    decoder(png())
    link, child = decoder._child.link, decoder._child.process
    request = {"size": 3, "seconds": 1, "max_pixels": 1, "least_side": None}
    request |= {"subject_key": None, "keep_header": False}
    sandbox.framing.send(link, request, [b"BAD"])
    assert child.wait(timeout=60) == -signal.SIGPROF


def test_a_decoder_is_pickled_without_its_process(decoder):
    decoder(png())
    twin = pickle.loads(pickle.dumps(decoder))
    assert twin.timeout_s == 5 and (twin(png())[0].pixels == PIXELS).all()
    assert twin._child.process.pid != decoder._child.process.pid


def test_the_child_imports_neither_torch_nor_ray():
    check = (
        f"import sys, {sandbox_child.__name__}\n"
        "sys.exit(bool({'torch', 'ray', 'cv2'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    assert subprocess.run([sys.executable, "-c", check], env=environment).returncode == 0


def test_an_impossible_timeout_or_memory_limit_is_refused_at_once():
    with pytest.raises(ValueError, match="seconds above 0"):
        Decoder(timeout_s=0)
    with pytest.raises(ValueError, match="256 MiB"):
        Decoder(memory_bytes=1 << 20)
