"""What the service answers when all is well."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from delineate.config import PostprocessingSettings
from delineate.data.rle import rle_to_labels
from delineate.serving.app import ServingSettings, create_app
from delineate.serving.schema import Answer

PNG = {"Content-Type": "image/png"}


def labels_of(response):
    with Image.open(io.BytesIO(response.content)) as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[:6] == [0, 0, 0, 230, 159, 0]
        return np.array(picture)


def until_ready(client):
    for _ in range(200):
        response = client.get("/readyz")
        if response.status_code == 200:
            return response
        time.sleep(0.01)
    pytest.fail(f"never ready: {response.text}")


def test_json_holds_shares_regions_and_times(client, workshop):
    response = client.post("/v1/segment", content=workshop.file(), headers=PNG)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["vary"] == "Accept"
    answer = response.json()
    Answer.model_validate(answer)
    assert (answer["model"], answer["version"]) == ("threshold", "3")
    assert (answer["width"], answer["height"]) == (40, 48)
    assert answer["classes"] == [
        {"id": 0, "name": "dark", "share": 0.25},
        {"id": 1, "name": "bright", "share": 0.75},
    ]
    assert answer["mean_confidence"] == 0.75
    bright = answer["regions"][1]
    assert (bright["class_id"], bright["class"], bright["area_px"]) == (1, "bright", 1440)
    assert bright["bbox"] == [10, 0, 30, 48]
    expected = workshop.pixels() > 127
    np.testing.assert_array_equal(rle_to_labels(answer["regions"], (48, 40)), expected)
    assert set(answer["timing_ms"]) == {"queue", "decode", "infer", "encode"}
    timing = re.fullmatch(
        r"queue;dur=([\d.]+), decode;dur=([\d.]+), infer;dur=([\d.]+), encode;dur=([\d.]+)",
        response.headers["server-timing"],
    )
    assert timing is not None
    assert float(timing[3]) == pytest.approx(answer["timing_ms"]["infer"], abs=0.01)
    assert 0 < answer["timing_ms"]["encode"] <= float(timing[4]) + 0.01


def test_regions_can_be_left_out(client, workshop):
    options = {"content": workshop.file(), "headers": PNG}
    with_regions = client.post("/v1/segment", **options).json()
    without = client.post("/v1/segment?rle=false", **options).json()
    assert without["regions"] is None
    assert without["classes"] == with_regions["classes"]


def test_png_is_indexed_with_the_palette(client, workshop):
    headers = {**PNG, "Accept": "image/png"}
    response = client.post("/v1/segment", content=workshop.file(), headers=headers)
    assert response.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(labels_of(response), workshop.pixels() > 127)
    assert response.headers["server-timing"].startswith("queue;dur=")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("application/json;q=0.5, image/png", "image/png"),
        ("text/html, */*;q=0.1", "application/json"),
    ],
)
def test_accept_chooses_the_answer(client, workshop, accept, kind):
    headers = {**PNG, "Accept": accept}
    response = client.post("/v1/segment", content=workshop.file(), headers=headers)
    assert response.headers["content-type"] == kind


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff; charset=binary"),
        ("PNG", "image/jpeg"),
        ("PNG", "Application/Octet-Stream"),
        ("PNG", None),
    ],
)
def test_any_image_type_is_taken_and_the_content_decides(client, workshop, kind, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = client.post("/v1/segment", content=workshop.file(kind=kind), headers=headers)
    assert response.status_code == 200, response.text
    assert response.json()["classes"][1]["share"] == 0.75


def test_a_form_is_taken(client, workshop):
    files = {"image": ("photo.png", workshop.file(), "image/png")}
    response = client.post("/v1/segment", files=files, data={"note": "left eye"})
    assert response.status_code == 200
    assert response.json()["width"] == 40


def test_images_larger_than_a_tile_and_postprocessing(workshop):
    pixels = workshop.pixels(150, 130)
    pixels[100, 100] = 0  # one dark pixel, a hole of the bright region
    body, headers = workshop.file(pixels), {**PNG, "Accept": "image/png"}
    clean = PostprocessingSettings(largest_hole_px=4)
    for settings, hole in ((PostprocessingSettings(), 0), (clean, 1)):
        app = create_app(workshop.model(postprocessing=settings), ServingSettings())
        with TestClient(app) as client:
            labels = labels_of(client.post("/v1/segment", content=body, headers=headers))
        assert labels[100, 100] == hole
        labels[100, 100] = 0
        np.testing.assert_array_equal(labels, pixels > 127)


def test_the_model_is_described(client):
    assert client.get("/v1/model").json() == {
        "name": "threshold",
        "version": "3",
        "task": "binary",
        "classes": [
            {"id": 0, "name": "dark", "colour": [0, 0, 0]},
            {"id": 1, "name": "bright", "colour": [230, 159, 0]},
        ],
        "input": {
            "channels": 1,
            "dtype": "uint8",
            "multiple_of": 1,
            "fixed_hw": None,
            "tile_px": 64,
            "max_body_bytes": 64 * 2**20,
            "pixel_limit": 2**26,
        },
    }


def test_alive_at_once_and_ready_when_warm(workshop):
    predictor = workshop.threshold()
    predictor.go_on.clear()
    with workshop.client(predictor) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        waiting = client.get("/readyz")
        assert waiting.status_code == 503
        assert waiting.json()["found"] == "is warming up"
        predictor.go_on.set()
        assert until_ready(client).json() == {"status": "ready"}


def test_a_model_that_cannot_run_is_never_ready(workshop, caplog):
    with workshop.client(workshop.broken("no such kernel")) as client:
        for _ in range(200):
            found = client.get("/readyz").json()["found"]
            if found != "is warming up":
                break
            time.sleep(0.01)
        assert found == "cannot run the model (RuntimeError; see the server's log)"
        assert client.get("/healthz").status_code == 200
    assert "the model does not run" in caplog.text


def test_a_fixed_size_is_warmed_at_that_size(workshop):
    seen = []

    class Watching(type(workshop.threshold())):
        def predict(self, images, outputs=("labels",)):
            seen.append((images.shape, tuple(outputs)))
            return super().predict(images, outputs)

    spec = replace(workshop.threshold().spec, fixed_hw=(32, 96))
    with workshop.client(Watching(spec)) as client:
        until_ready(client)
    assert seen == [((1, 32, 96, 1), ("labels",)), ((1, 32, 96, 1), ("labels", "summary"))]


def test_metrics_count_requests_stages_and_pixels(client, workshop):
    client.post("/v1/segment", content=workshop.file(), headers=PNG)
    client.post("/v1/segment", content=b"", headers=PNG)
    client.get("/etc/passwd")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = response.text.splitlines()
    assert 'delineate_requests_total{path="/v1/segment",status="200"} 1.0' in lines
    assert 'delineate_requests_total{path="/v1/segment",status="400"} 1.0' in lines
    assert 'delineate_requests_total{path="other",status="404"} 1.0' in lines
    for stage in ("queue", "decode", "infer", "encode"):
        count = f'delineate_stage_seconds_count{{model="threshold",stage="{stage}"}} 1.0'
        assert count in lines
    assert 'delineate_image_pixels_sum{model="threshold"} 1920.0' in lines
    assert 'delineate_requests_in_flight{model="threshold"} 0.0' in lines
    assert 'delineate_model_info{model="threshold",version="3"} 1.0' in lines


def test_two_apps_keep_their_figures_apart(client, workshop):
    with workshop.client() as other:
        other.post("/v1/segment", content=workshop.file(), headers=PNG)
    assert 'path="/v1/segment"' not in client.get("/metrics").text


def test_openapi_documents_the_route(client):
    document = client.get("/openapi.json").json()
    route = document["paths"]["/v1/segment"]["post"]
    assert set(route["requestBody"]["content"]) >= {"image/png", "multipart/form-data"}
    assert set(route["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert set(route["responses"]) == {
        "200", "400", "406", "408", "413", "415", "422", "500", "503",
    }  # fmt: skip
    problem = route["responses"]["413"]["content"]["application/problem+json"]["schema"]
    assert set(problem["properties"]) == {"status", "found", "where", "mend"}
    region = document["components"]["schemas"]["ClassRegion"]["properties"]
    assert set(region) == {"class_id", "class", "area_px", "bbox", "segmentation"}
    assert set(document["paths"]) == {
        "/v1/segment", "/v1/model", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip


def test_the_page_loads_nothing_from_elsewhere(client):
    first, second = client.get("/"), client.get("/")
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", first.headers["content-security-policy"])[1]
    assert first.text.count(f'nonce="{nonce}"') == 2
    assert nonce not in second.text
    assert "NONCE" not in first.text
    assert re.findall(r"https?://", first.text) == []


def test_the_type_that_curl_gives_data_by_itself(client, workshop):
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    response = client.post("/v1/segment", content=workshop.file(), headers=kind)
    assert response.status_code == 200
    assert response.json()["width"] > 0
