from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open

from delineate.cli.watching import Watching

Run = Callable[..., Any]


def test_a_training_ends_in_one_document(process: Run, trained: Any, plan: Path) -> None:
    run = plan.parent / "run"
    done = process(
        "train", trained.dataset, "-o", run, "--steps", 2, "--plan", plan, "--name", "stripes",
        "--no-canary", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.document["bundle"] == str(run / "stripes.bundle")
    assert done.document["steps"] == 2
    assert done.document == json.loads((run / "result.json").read_text())
    assert "step 2: mIoU on val " in done.err
    assert "Traceback" not in done.err
    assert not (run / "stripes.bundle/canary").exists()


def test_a_table_for_people(delineate: Run, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delineate.workflows.train.train", lambda *_, **__: trained.result)
    done = delineate("train", trained.dataset, "-o", "anywhere", "--steps", 2)
    assert done.status == 0
    assert "ground" in done.out
    assert done.out.splitlines()[-2:] == [
        f"bundle  {trained.bundle}",
        f"report  {trained.run / 'report.html'}",
    ]


def test_options_reach_the_workflow(
    delineate: Run, trained: Any, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def fake(dataset: Path, out: Path, **rest: Any) -> Any:
        seen.update(rest, dataset=dataset, out=out)
        return trained.result

    monkeypatch.setattr("delineate.workflows.train.train", fake)
    done = delineate(
        "train", "data", "-o", "run", "--budget", "1h30m", "--plan", plan, "--encoder-weights",
        "none", "--architecture", "deeplabv3+", "--loss", "focal", "--crop", 64, "--seed", 3,
        "--learning-rate", "1e-4", "--resume", "--force",
    )  # fmt: skip
    assert done.status == 0
    assert (seen["dataset"], seen["out"]) == (Path("data"), Path("run"))
    assert seen["plan"].model.decoder_channels == (16, 8, 8, 8, 8)
    assert seen["changes"] == {
        "model.architecture": "deeplabv3+",
        "model.encoder_weights": None,
        "loss.name": "focal",
        "crop_px": 64,
        "optimiser.learning_rate": 1e-4,
        "seed": 3,
    }
    settings = seen["settings"]
    assert settings.duration.budget_s == 5400
    assert (settings.resume, settings.force, settings.canary) == (True, True, True)
    assert settings.command.startswith("delineate train data -o run --budget 1h30m")


def step_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="pt") as file:
        return int(json.loads(file.metadata()["progress"])["step"])


def test_ctrl_c_says_how_to_resume(
    trained: Any, plan: Path, command: Callable[..., list[str]], process: Run
) -> None:
    run = plan.parent / "run"
    words = ("train", trained.dataset, "-o", run, "--plan", plan, "--steps")
    training = subprocess.Popen(
        command(*words, 100_000, "--force"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert training.stderr is not None
    try:
        while not training.stderr.readline().startswith("step "):
            assert training.poll() is None
        training.send_signal(signal.SIGINT)
        out, err = training.communicate(timeout=200)
    finally:
        training.kill()
    assert (training.returncode, out) == (130, "")
    said = [line for line in err.splitlines() if not line.startswith("step ")]
    line = " ".join(map(str, words))
    assert said == [
        "stopping after this step; Ctrl-C once more stops at once",
        f"interrupted; to go on: delineate {line} 100000 --resume",
    ]
    reached = step_of(run / "checkpoints/last.safetensors")
    assert reached >= 1
    done = process(*words, reached + 1, "--resume", "--json")
    assert done.status == 0, done.err
    assert done.document["steps"] == reached + 1


def test_ctrl_c_before_anything_is_written(
    delineate: Run, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("delineate.workflows.training_setup.look_at", interrupt)
    before = signal.getsignal(signal.SIGINT)
    done = delineate("train", trained.dataset, "-o", tmp_path / "run", "--steps", 2, "--json")
    assert done.status == 130
    assert done.err == "interrupted; nothing was written yet\n"
    assert done.document["error"]["mend"] == "nothing was written yet"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def event(kind: str = "step", step: int = 1, **fields: Any) -> Any:
    values = {
        "fraction": 0.5, "remaining_s": 7.4, "loss": 0.25, "images_per_s": 8.0, "val_miou": None,
        "best_miou": None,
    } | fields  # fmt: skip
    return SimpleNamespace(kind=kind, step=step, **values)


def test_what_is_said_while_it_trains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("delineate.cli.watching.time", SimpleNamespace(monotonic=lambda: now))
    with Watching() as watch:
        watch(event(step=1))
        watch(event(step=2))
        now += 16
        watch(event(step=3))
        watch(event("validation", step=3, val_miou=0.5, best_miou=0.75))
        watch(event("validation", step=4, val_miou=float("nan")))
        watch(event("note", step=5, text="Memory was full"))
        watch(event("stopped", step=5))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "step 1: loss 0.2500, 8.0 images/s, 50% done, 7 s left",
        "step 3: loss 0.2500, 8.0 images/s, 50% done, 7 s left",
        "step 3: mIoU on val 0.5000 (best 0.7500)",
        "step 4: mIoU on val nan (best nan)",
        "note: Memory was full",
        "step 5: stopped, the score on val gets no better",
    ]


def test_reading_is_said_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("delineate.cli.watching.time", SimpleNamespace(monotonic=lambda: now))
    with Watching() as watch:
        for done in (0.25, 0.5):
            watch(event("reading", step=0, fraction=done))
        now += 16
        watch(event("reading", step=0, fraction=0.75))
    assert capsys.readouterr().err.splitlines() == [
        "reading every image and mask once, 25% done",
        "reading every image and mask once, 75% done",
    ]


def test_a_seed_that_is_too_large(wrong: Run, trained: Any, tmp_path: Path) -> None:
    message = wrong("train", trained.dataset, "-o", tmp_path / "run", "--steps", 2,
                    "--seed", "99999999999999999999")  # fmt: skip
    assert message == (
        "the plan: seed: Input should be less than or equal to 2147483647 (found "
        "99999999999999999999)."
    )
