from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from typing import Any


def test_a_server_answers_until_ctrl_c(trained: Any, command: Callable[..., list[str]]) -> None:
    arguments = ("serve", trained.bundle, "--port", 0, "--engine", "onnxruntime")
    server = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = ""
        while "serving first 1 (float32) on onnxruntime at " not in said:
            said = server.stderr.readline()
            assert said, "the server ended"
        request = urllib.request.Request(
            said.split(" at ")[1].strip() + "/v1/segment",
            data=(trained.dataset / "val/images/val0.png").read_bytes(),
            headers={"Accept": "application/json", "Content-Type": "image/png"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert set(answer) >= {"classes"}
        server.send_signal(signal.SIGINT)
        _, rest = server.communicate(timeout=60)
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0
    assert "Traceback" not in rest
