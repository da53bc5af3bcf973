"""``RUN/report.html``: the page of a run, live while it trains."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delineate.data.files import write_text
from delineate.evaluation.page import (
    Html,
    card,
    escape,
    facts,
    join,
    number,
    page,
    scroll,
    section,
)
from delineate.training.history import Validation, append_history, read_history
from delineate.workflows.find import FIND, find_section
from delineate.workflows.run_pictures import PICTURES_STYLE, RunPictures, filmstrips, legend
from delineate.workflows.run_plots import (
    PLOT_STYLE,
    SERIES,
    Curve,
    class_table,
    curves_plot,
    smoothed,
    time_bar,
)
from delineate.workflows.run_record import RunRecord, read_run

PAGE = "report.html"
VALIDATION_PAGE = "validation.html"

_REFRESH_S = 10
_COST_SHARE = 0.0025  # of the time, at most, that renewals between validations take
_STYLE = (
    PLOT_STYLE
    + PICTURES_STYLE
    + """
.state { display: inline-block; padding: .2rem .7rem; border-radius: 1rem; font-weight: 600;
  border: 1px solid var(--line); background: var(--card); }
.state.training { color: #ffffff; background: #1f6feb; border-color: #1f6feb; }
.state.stopped { color: #ffffff; background: #c2410c; border-color: #c2410c; }
.warnings { margin: 1.25rem 0 0; padding: .7rem 1rem .7rem 2rem; background: var(--card);
  border: 1px solid var(--wrong); border-radius: .6rem; }
.list .value { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.list .same { color: var(--muted); }
details.wide { max-width: none; }
"""
)


@dataclass(frozen=True)
class RunState:
    """Where a run stands when its page is written.

    Attributes:
        words: for people: ``finished``, ``stopped at step 300: interrupted``.
        kind: decides the colour, and whether the page loads itself anew.
    """

    words: str
    kind: str

    @classmethod
    def training(cls, fraction: float, remaining_s: float) -> RunState:
        left = f", {duration(remaining_s)} left" if math.isfinite(remaining_s) else ""
        return cls(f"training: {100 * fraction:.0f} %{left}", "training")


class RunPage:
    """Keeps ``RUN/report.html`` up to date, and ``history.jsonl`` with it.

    Args:
        run: the run's folder, with ``plan.yaml`` and ``run.json`` in it.
        pictures: of the validation images that are followed.
    """

    def __init__(self, run: Path, pictures: RunPictures) -> None:
        self._run, self._pictures = run, pictures
        self._written = self._cost_s = 0.0

    def begin(self) -> None:
        """Write the page before the first step.

        Raises:
            OutputError: a file cannot be written.
        """
        self._pictures.begin()
        self._write(RunState.training(0.0, math.nan))

    def on_validation(self, validation: Validation) -> None:
        """Note a validation: a line of history, pictures, the page.

        Raises:
            OutputError: a file cannot be written.
        """
        append_history(self._run, validation)
        rows = read_history(self._run)
        best = max(rows, key=lambda row: -1.0 if row.miou is None else row.miou)
        valid = {row.step for row in rows}
        self._pictures.add(validation.step, validation.predict, valid=valid, best=best.step)
        self._write(RunState.training(validation.fraction, validation.remaining_s))

    def renew(self, fraction: float, remaining_s: float) -> None:
        """Write the page while steps go on, so seldom that it costs 0.25 % of the time at most."""
        if time.monotonic() - self._written > max(_REFRESH_S, self._cost_s / _COST_SHARE):
            self._write(RunState.training(fraction, remaining_s))

    def finish(self) -> None:
        """Write the page of a run that has come to its end, with ``result.json`` in its folder."""
        self._write(RunState("finished", "finished"))

    def stop(self, reason: str) -> None:
        """Write the page of a run that ends before its time."""
        steps = read_run(self._run).steps
        self._write(RunState(f"stopped at step {steps:,}: {reason}", "stopped"))

    def _write(self, state: RunState) -> None:
        began = time.monotonic()
        write_run_page(self._run, state)
        self._written = time.monotonic()
        self._cost_s = self._written - began


def write_run_page(run: Path, state: RunState) -> None:
    """Write ``RUN/report.html`` from the files of the run: whole or not at all.

    Raises:
        SettingsError: ``run`` holds no run.
        OutputError: the page cannot be written.
    """
    record = read_run(run)
    parts = [
        Html(f"<style>{_STYLE}</style>"),
        _state(state),
        _warnings(record),
        _cards(record),
        _curves(record),
        _classes(record),
        _samples(record),
        _time(record),
        _find(run),
        _facts(record),
        _plan(record),
    ]
    html = page(f"Run {record.name}", join(parts), _subtitle(record))
    if state.kind == "training":
        live = f'<meta http-equiv="refresh" content="{_REFRESH_S}">\n<title>'
        html = Html(html.replace("<title>", live, 1))
    write_text(run / PAGE, html)


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``2 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _subtitle(record: RunRecord) -> str:
    plan = record.plan
    words = [f"{plan.get('model.architecture')} with {plan.get('model.encoder')}"]
    if "dataset" in record.note:
        words.append(f"on {Path(record.note['dataset']).name}")
    return " ".join(words)


def _state(state: RunState) -> Html:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    note = f"as of {now}"
    if state.kind == "training":
        note += (
            f"; the page loads itself anew every {_REFRESH_S} s. If this time stands still for "
            "minutes, the training was killed: delineate train --resume goes on"
        )
    return Html(
        f'<p><span class="state {state.kind}">{escape(state.words)}</span> '
        f'<span class="subtitle">{escape(note)}</span></p>'
    )


def _warnings(record: RunRecord) -> Html:
    if not record.warnings:
        return Html("")
    items = join(f"<li>{escape(text)}</li>" for text in record.warnings)
    return Html(f'<ul class="warnings" aria-label="Warnings">{items}</ul>')


def _cards(record: RunRecord) -> Html:
    cards = []
    if record.best is not None:
        step, miou = record.best
        cards.append(card("Best mIoU on val", number(miou), f"at step {step:,}"))
    if record.scores:
        step, miou, dice = record.scores[-1]
        note = "" if dice is None else f"Dice {dice:.3f}, step {step:,}"
        cards.append(card("Newest mIoU on val", number(miou), note))
    if record.result is not None:
        scores = record.result["validation"]
        foreground = scores.get("foreground")
        note = f"{foreground['class']}: Dice {_or_dash(foreground['dice'])}" if foreground else ""
        cards.append(card("mIoU of the bundle", number(_nan(scores["mean_iou"])), note))
    seen = record.steps * int(record.plan.get("batch_size", 0))
    cards.append(card("Time", escape(duration(record.elapsed_s)), "resumes included"))
    cards.append(card("Steps", Html(f"{record.steps:,}"), f"{seen:,} crops seen"))
    if record.wait_share is not None:
        shown = Html(f"{100 * record.wait_share:.1f} %")
        cards.append(card("Steps waited for data", shown, "of their time"))
    there = (record.path / VALIDATION_PAGE).exists()
    link = f'<p><a href="{VALIDATION_PAGE}">The validation report</a> has the confusion matrix and '
    more = f"{link}the worst and best images.</p>" if there and record.result is not None else ""
    return Html(f'<div class="cards">{join(cards)}</div>{more}')


def _curves(record: RunRecord) -> Html:
    rows = record.metrics
    minutes = [(float(r["step"] or 0), float(r["elapsed_s"] or 0) / 60) for r in rows]

    def points(column: str) -> list[tuple[float, float]]:
        found = [(float(r["step"] or 0), r.get(column)) for r in rows]
        return [(step, value) for step, value in found if value is not None and value == value]

    def noisy(column: str, colour: str) -> list[Curve]:
        raw = points(column)
        faint = Curve("single steps", colour, raw, faint=True)
        return [faint, Curve("smoothed", colour, smoothed(raw))]

    wanted: dict[str, tuple[list[Curve], float | None]] = {
        "Loss": (noisy("loss", SERIES[0]), None),
        "Scores on val": (
            [
                Curve("mIoU", SERIES[0], points("val_miou")),
                Curve("Dice", SERIES[1], points("val_dice")),
            ],
            1.0,
        ),
        "Learning rate": ([Curve("rate", SERIES[2], points("learning_rate"))], None),
        "Crops trained on, 1/s": (noisy("images_per_s", SERIES[3]), None),
    }
    plots = [
        curves_plot(title, curves, x_name="step", minutes=minutes, top=top)
        for title, (curves, top) in wanted.items()
    ]
    if not any(plots):
        return section("Curves", Html("<p>The first steps are under way.</p>"))
    return section("Curves", Html(f'<div class="plots">{join(plots)}</div>'))


def _classes(record: RunRecord) -> Html:
    if not record.history:
        return Html("")
    intro = (
        "IoU on val after each validation; the best of a class is bold, a dash is a class that "
        "neither truth nor prediction has."
    )
    table = class_table(record.history, legend(record.path))
    return section("Classes over time", scroll(table, "IoU of each class"), escape(intro))


def _samples(record: RunRecord) -> Html:
    scores = {step: miou for step, miou, _ in record.scores}
    best = None if record.best is None else record.best[0]
    strips = filmstrips(record.path, scores, best)
    intro = "The same validation images, spread over the split, through the training."
    return section("Samples", strips, escape(intro)) if strips else strips


def _time(record: RunRecord) -> Html:
    if not record.history:
        return Html("")
    last = record.history[-1]
    seconds = dict(last.seconds)
    if record.result is not None:
        seconds["export"] = max(record.elapsed_s - last.elapsed_s, 0.0)
    waited = "" if record.wait_share is None else f"{100 * record.wait_share:.1f} %"
    intro = f"Up to the last validation. The steps waited {waited} of their time for data."
    if record.result is not None:
        intro = f"From start to bundle. The steps waited {waited} of their time for data."
    return section("Where the time went", time_bar(seconds), escape(intro))


def _find(run: Path) -> Html:
    """The search for learning rate and batch size, where there was one."""
    if not (run / FIND).exists():
        return Html("")
    return find_section(json.loads((run / FIND).read_text(encoding="utf-8")))


def _facts(record: RunRecord) -> Html:
    note, environment = record.note, record.environment
    rows: dict[str, Any] = {
        "Command": note.get("command"),
        "Dataset": note.get("dataset"),
        "Dataset SHA-256": note.get("dataset_sha256"),
        "Seed": record.plan.get("seed"),
        "Deterministic": "yes" if record.plan.get("deterministic") else "no",
        **hardware(record),
        "Commit": environment.get("commit"),
        "Python": environment.get("python"),
        "Packages": environment.get("packages"),
    }
    shown = {name: value for name, value in rows.items() if value not in (None, "", {}, [])}
    return section("Made with", facts(shown))


def hardware(record: RunRecord) -> dict[str, str]:
    """The machine of a run for people, by name; only what its record holds."""
    known = record.environment
    found: dict[str, str] = {}
    if known.get("cpu"):
        found["Processor"] = str(known["cpu"])
    if known.get("cores"):
        found["Cores"] = f"{known['cores']}, {known.get('threads', '?')} threads for an operator"
    if known.get("memory_bytes"):
        found["Memory"] = f"{known['memory_bytes'] / 2**30:.1f} GiB"
    if "gpus" in known:
        found["GPU"] = ", ".join(known["gpus"]) or "none"
    system = known.get("platform", record.note.get("machine"))
    return found | ({"System": str(system)} if system else {})


def _plan(record: RunRecord) -> Html:
    changed = record.changed
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td class="value"><strong>{escape(show(value))}'
        f'</strong></td><td class="value same">{escape(show(usual))}</td></tr>'
        for name, (value, usual) in changed.items()
    ]
    everything = [
        f'<tr><th scope="row">{escape(name)}</th><td class="value{_faint(name in changed)}">'
        f"{escape(show(value))}</td></tr>"
        for name, value in record.plan.items()
    ]
    table = (
        '<table class="list"><thead><tr><th scope="col">setting</th><th scope="col">this run</th>'
        f'<th scope="col">default</th></tr></thead><tbody>{join(rows)}</tbody></table>'
    )
    whole = (
        f"<details class='wide'><summary>All {len(record.plan)} settings</summary>"
        f'<table class="list"><tbody>{join(everything)}</tbody></table></details>'
    )
    few = scroll(Html(table), "Settings that differ") if rows else Html("<p>All defaults.</p>")
    intro = "Settings that differ from the defaults."
    return section("Plan", join([few, whole]), escape(intro))


def _faint(strong: bool) -> str:
    return "" if strong else " same"


def show(value: object) -> str:
    """A setting for people."""
    if isinstance(value, list | tuple):
        return ", ".join(show(one) for one in value)
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
