"""The service behind a real socket."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from delineate.errors import SettingsError
from delineate.serving.server import run, running

SRC = Path(__file__).resolve().parents[2] / "src"

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from delineate.config import PostprocessingSettings, TilingSettings
from delineate.serving.app import ServedModel, create_app
from delineate.serving.server import run
from delineate.types import PredictorSpec

class Never:
    spec = PredictorSpec(("a", "b"), "binary", 1, "uint8")
    def predict(self, images, outputs=("labels",)):
        raise RuntimeError

colours = ((0, 0, 0), (1, 1, 1))
model = ServedModel("m", "1", Never(), colours, TilingSettings(), PostprocessingSettings())
assert "torch" not in sys.modules
run(create_app(model), port=0, on_start=lambda url: print(url, flush=True))
print("ended")
"""


def post(url, body, headers):
    request = urllib.request.Request(url + "/v1/segment", body, headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status, response.read()


def connect(url):
    place = urlsplit(url)
    return http.client.HTTPConnection(place.hostname, place.port, timeout=20)


def test_many_clients_at_once(workshop):
    bodies = [workshop.file(workshop.pixels(20 + n, 40)) for n in range(12)]
    with running(workshop.app()) as url, ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda body: post(url, body, {"Content-Type": "image/png"}), bodies)
        )
    assert [status for status, _ in answers] == [200] * 12
    assert [json.loads(body)["height"] for _, body in answers] == [20 + n for n in range(12)]


def test_requests_under_way_are_answered_before_the_server_ends(workshop):
    predictor = workshop.threshold()
    answers = []
    with running(workshop.app(predictor)) as url:
        connection = connect(url)
        while True:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                break
        predictor.go_on.clear()
        thread = threading.Thread(
            target=lambda: answers.append(
                post(url, workshop.file(), {"Content-Type": "image/png"})[0]
            )
        )
        thread.start()
        while predictor.running == 0:
            time.sleep(0.01)
        threading.Timer(0.3, predictor.go_on.set).start()
    thread.join()
    connection.close()
    assert answers == [200]
    with pytest.raises(OSError, match="refused"):
        post(url, b"", {})


@pytest.mark.parametrize("expect", [False, True])
def test_a_client_reads_the_refusal_of_a_large_body(workshop, expect):
    with running(workshop.app(max_body_bytes=2**22)) as url:
        connection = connect(url)
        connection.putrequest("POST", "/v1/segment")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", str(2**23))
        if expect:
            connection.putheader("Expect", "100-continue")
        connection.endheaders()
        if not expect:
            connection.send(bytes(2**22 + 2**20))
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["found"] == "is 8388608 bytes"
        connection.close()


def test_a_chunked_body_is_refused_on_the_way(workshop):
    with running(workshop.app(max_body_bytes=2**20)) as url:
        connection = connect(url)
        chunks = (bytes(2**16) for _ in range(40))
        connection.request("POST", "/v1/segment", chunks, encode_chunked=True,
                           headers={"Transfer-Encoding": "chunked"})  # fmt: skip
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["found"] == "is more than 1048576 bytes"
        connection.close()


def test_a_body_that_never_ends_is_given_up(workshop):
    with running(workshop.app(upload_timeout_s=0.2)) as url:
        connection = connect(url)
        connection.putrequest("POST", "/v1/segment")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"\x89PNG")
        response = connection.getresponse()
        assert response.status == 408
        assert json.loads(response.read())["found"] == "did not arrive within 0.2 s"
        connection.close()


def test_a_client_that_hangs_up_frees_its_place(workshop):
    with running(workshop.app(queue_length=0)) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port)) as raw:
            raw.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
            time.sleep(0.1)
        for _ in range(200):
            try:
                status, _ = post(url, workshop.file(), {"Content-Type": "image/png"})
            except urllib.error.HTTPError as error:
                error.close()
                time.sleep(0.01)
            else:
                break
        assert status == 200


def test_a_port_in_use(workshop):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError) as caught:
            run(workshop.app(), port=port)
    message = str(caught.value)
    assert message.startswith(f"127.0.0.1:{port}: the port is in use. Stop the program that uses ")
    assert caught.value.mend.rpartition(" ")[2] != str(port)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "port 70000 is out of range. Choose one of 1 to 65535."),
        (
            "192.0.2.1",
            8000,
            "192.0.2.1:8000: is no address of this machine. "
            "Use 127.0.0.1 for this machine alone, or 0.0.0.0 for every address of it.",
        ),
    ],
)
def test_addresses_that_cannot_be_served(workshop, host, port, message):
    with pytest.raises(SettingsError) as caught:
        run(workshop.app(), host, port)
    assert str(caught.value) == message


def test_signals_end_it_cleanly_and_logs_go_to_stderr():
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(SRC)]
    with ExitStack() as stack:
        processes = {
            number: stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        for number, process in processes.items():
            url = process.stdout.readline().strip()
            for path in ("/healthz", "/v1/model"):
                with urllib.request.urlopen(url + path, timeout=20) as response:
                    assert response.status == 200
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=30)
            assert process.returncode == 0
            assert stdout == "ended\n"
            assert '"GET /v1/model HTTP/1.1" 200' in stderr
            assert "/healthz" not in stderr
