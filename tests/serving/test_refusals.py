"""Every way a request can be wrong, and what it is told."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

PNG = {"Content-Type": "image/png"}


def problem_of(response):
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"status", "found", "where", "mend"}
    assert problem["status"] == response.status_code
    assert "Traceback" not in response.text
    return problem["status"], problem["where"], problem["found"], problem["mend"]


def refused(client, content, headers=PNG, url="/v1/segment"):
    return problem_of(client.post(url, content=content, headers=headers))


def test_an_empty_body(client):
    assert refused(client, b"") == (
        400,
        "image",
        "is empty (0 bytes)",
        "Fetch or export the file again.",
    )


def test_a_truncated_png(client, workshop):
    rng = np.random.default_rng(0)
    whole = workshop.file(rng.integers(0, 255, (64, 64), np.uint8))
    for length in (1, 8, 20, 60, len(whole) // 2, len(whole) - 1):
        status, where, found, _ = refused(client, whole[:length])
        assert (status, where) == (400, "image")
        assert found.startswith("is ")


def test_noise(client):
    noise = np.random.default_rng(1).bytes(100_000)
    status, where, found, mend = refused(client, noise)
    assert (status, where) == (400, "image")
    assert found.startswith("is of an unknown format")
    assert mend == "Convert it to PNG, TIFF, JPEG, WebP or BMP."


def test_a_header_that_claims_a_huge_image(client, workshop):
    assert refused(client, workshop.claim(60_000, 60_000)) == (
        413,
        "image",
        "is 60000 x 60000 pixels (width x height), more than the limit of 67108864 pixels",
        "Cut it into parts. The limit of delineate serve and of read_image is a "
        "setting, which would have to be 3600000000.",
    )


def test_the_pixel_limit_is_a_setting(workshop):
    with workshop.client(pixel_limit=48 * 40 - 1) as client:
        assert refused(client, workshop.file())[0] == 413
    with workshop.client(pixel_limit=48 * 40) as client:
        assert client.post("/v1/segment", content=workshop.file()).status_code == 200


def test_a_body_over_the_limit_by_its_own_account(workshop):
    with workshop.client(max_body_bytes=1000) as client:
        assert refused(client, bytes(1001)) == (
            413,
            "body",
            "is 1001 bytes",
            "Send at most 1000 bytes, or have the server started with a larger max_body_bytes.",
        )


def test_a_stream_is_cut_off_at_the_limit(workshop):
    with workshop.client(max_body_bytes=1000) as client:
        status, where, found, _ = refused(client, (bytes(100) for _ in range(50)))
    assert (status, where, found) == (413, "body", "is more than 1000 bytes")


def test_a_form_over_the_limit(workshop):
    with workshop.client(max_body_bytes=1000) as client:
        for size in (1001, 100_000):
            response = client.post("/v1/segment", files={"image": ("a.png", bytes(size))})
            status, where, _, mend = problem_of(response)
            assert (status, where) == (413, "body")
            assert mend.startswith("Send at most 1000 bytes")


def test_a_body_that_is_no_image(client, workshop):
    kind = {"Content-Type": "application/pdf"}
    assert refused(client, workshop.file(), kind) == (
        415,
        "header Content-Type",
        "is 'application/pdf'",
        "Send image/png, image/jpeg, image/tiff, image/webp, image/bmp or "
        "application/octet-stream, or a multipart form with a file in the field 'image'.",
    )


def test_a_compressed_body(client, workshop):
    headers = {**PNG, "Content-Encoding": "gzip"}
    status, where, found, _ = refused(client, workshop.file(), headers)
    assert (status, where, found) == (415, "header Content-Encoding", "is 'gzip'")


def test_an_answer_that_is_not_on_offer(client, workshop):
    headers = {**PNG, "Accept": "text/html, image/png;q=0"}
    assert refused(client, workshop.file(), headers) == (
        406,
        "header Accept",
        "is 'text/html, image/png;q=0'",
        "Ask for application/json or image/png.",
    )


def test_forms_without_one_file(client, workshop):
    file = workshop.file()
    forms = {
        "no file in the field 'image' (found 'picture')": [("picture", ("a.png", file))],
        # curl -F image=a.png, without the @
        "no file in the field 'image' (found 'image')": [("image", (None, "a.png"))],
        "2 files in the field 'image' (found 'image', 'image')": [("image", ("a.png", file))] * 2,
    }
    mend = "Send one file in it, for example: curl -F image=@FILE"
    for found, files in forms.items():
        response = client.post("/v1/segment", files=files)
        assert problem_of(response) == (422, "form", f"has {found}", mend)


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        ("", b"", "its Content-Type names no boundary"),
        ("; boundary=x", b"", "it ends before its last boundary"),
        ("; boundary=x", b"noise", "Expected boundary"),
        (
            "; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\x89PNG',
            "it ends before its last boundary",
        ),
    ],
)
def test_damaged_forms(client, kind, body, found):
    status, where, said, mend = refused(
        client, body, {"Content-Type": "multipart/form-data" + kind}
    )
    assert (status, where) == (400, "body")
    assert said.startswith("is a damaged form (" + found)
    assert mend == "Send one file, for example: curl -F image=@FILE"


def test_a_part_without_a_name(client):
    body = b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert refused(client, body, kind)[2] == "has no file in the field 'image' (found '')"


def test_channels_that_the_model_does_not_take(client, workshop):
    colour = np.zeros((8, 8, 3), np.uint8)
    assert refused(client, workshop.file(colour)) == (
        422,
        "image",
        "has 3 channels and 1 is wanted",
        "Give images of 1 channel.",
    )


def test_a_pixel_type_that_the_model_does_not_take(client, workshop):
    deep = np.zeros((8, 8), np.uint16)
    assert refused(client, workshop.file(deep)) == (
        422,
        "image",
        "has uint16 pixels and the model takes uint8",
        "Send an image of uint8 pixels, scaled as the training images were.",
    )


def test_an_option_that_is_no_truth_value(client, workshop):
    status, where, found, _ = refused(client, workshop.file(), url="/v1/segment?rle=perhaps")
    assert (status, where) == (422, "option rle")
    assert found.startswith("is 'perhaps': ")


def test_routes_that_are_not_there(client):
    mend = "The routes are listed in /openapi.json."
    assert problem_of(client.get("/v2/segment")) == (404, "/v2/segment", "not found", mend)
    found = "GET is not answered here"
    assert problem_of(client.get("/v1/segment")) == (405, "/v1/segment", found, "Use POST.")


def test_an_unforeseen_failure_tells_the_client_nothing(workshop):
    with workshop.client(workshop.broken("a secret path")) as client:
        assert refused(client, workshop.file()) == (
            500,
            "/v1/segment",
            "the server failed",
            "The operator finds the reason in the server's log.",
        )
        assert client.get("/healthz").status_code == 200
        assert 'in_flight{model="threshold"} 0.0' in client.get("/metrics").text


def test_busy_beyond_the_queue(workshop):
    predictor = workshop.threshold()
    with workshop.client(predictor, queue_length=1, retry_after_s=7) as client:
        predictor.go_on.clear()
        statuses = []

        def ask():
            statuses.append(client.post("/v1/segment", content=workshop.file()).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        while 'in_flight{model="threshold"} 2.0' not in client.get("/metrics").text:
            time.sleep(0.01)
        response = client.post("/v1/segment", content=workshop.file())
        assert problem_of(response) == (
            503,
            "server",
            "is busy: 2 requests run or wait",
            "Send it again after 7 s.",
        )
        assert response.headers["retry-after"] == "7"
        predictor.go_on.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200]
        assert client.post("/v1/segment", content=workshop.file()).status_code == 200


@pytest.mark.parametrize("calls", [1, 3])
def test_the_engine_gets_as_many_calls_as_its_spec_says(workshop, calls):
    predictor = workshop.threshold(calls_in_flight=calls)
    with workshop.client(predictor, queue_length=8) as client:
        predictor.go_on.clear()
        threads = [
            threading.Thread(
                target=client.post, args=("/v1/segment",), kwargs={"content": workshop.file()}
            )
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        while 'in_flight{model="threshold"} 6.0' not in client.get("/metrics").text:
            time.sleep(0.01)
        time.sleep(0.1)
        assert predictor.running == calls
        predictor.go_on.set()
        for thread in threads:
            thread.join()
    assert predictor.most_running == calls
