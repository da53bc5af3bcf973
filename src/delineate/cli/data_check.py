"""``delineate data check``: what is wrong with a dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from delineate.cli.console import JsonOption, emit, progress_of
from delineate.data.checks.check import check as check_dataset
from delineate.data.checks.findings import Finding
from delineate.data.checks.fixing import LOG_FILE, Change
from delineate.data.checks.fixing import fix as fix_dataset

SHOWN = 10
"""Files of one kind that are printed; --json has them all."""


def check(
    dataset: Annotated[Path, typer.Argument(help="A dataset: a folder with dataset.yaml.")],
    fix: Annotated[
        Path | None, typer.Option(help="Write a mended copy there; the dataset is only read.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Also name labels that this bundle doubts (cleanlab; extra 'clean')."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; as many as processors when left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with a dataset; exit status 1 when something is.

    With --fix, what is safe to mend is mended in a copy, and the status is 1 when something is
    left.

    Example: delineate data check DATASET
    """
    changes: list[Change] = []
    with progress_of("checking") as progress:
        if fix is None:
            findings = left = check_dataset(dataset, workers=workers, progress=progress)
        else:
            fixed = fix_dataset(dataset, fix, workers=workers, progress=progress)
            findings, changes, left = fixed.findings, fixed.changes, fixed.left
    document: dict[str, Any] = {"dataset": str(dataset)}
    doubts: str = ""
    if bundle is not None:
        suspicion, doubted = _suspicion(bundle, dataset if fix is None else fix)
        document["suspicion"] = suspicion
        doubts = _told(suspicion)
        findings, left = [*findings, *doubted], [*left, *doubted]
    document["findings"] = [finding.to_dict() for finding in findings]
    if fix is not None:
        document["fixed"] = str(fix)
        document["changes"] = [asdict(change) for change in changes]
        document["left"] = [finding.to_dict() for finding in left]

    def show(console: Console) -> None:
        if fix is not None:
            _show_changes(console, fix, changes)
        if doubts:
            console.print(doubts, highlight=False)
        _show_findings(console, dataset if fix is None else fix, left)

    emit(document, as_json=as_json, show=show)
    if left:
        raise typer.Exit(1)


def _suspicion(bundle: Path, dataset: Path) -> tuple[dict[str, Any], list[Finding]]:
    from delineate.workflows.suspicious import suspicious_labels

    with progress_of("asking the model") as progress:
        found = suspicious_labels(bundle, dataset, on_progress=progress)
    return found.to_dict(), found.findings


def _told(suspicion: dict[str, Any]) -> str:
    text = f"suspicious labels: {suspicion['suspicious']:.2%} of the labelled pixels"
    confused = suspicion["confused"]
    if confused:
        text += (
            f", most often {confused['label']} where the model sees {confused['predicted']} "
            f"({confused['share']:.0%})"
        )
    if suspicion["left_out"]:
        text += f"; {suspicion['left_out']} images could not be looked at"
    return text


def _show_changes(console: Console, out: Path, changes: Sequence[Change]) -> None:
    by_what: dict[str, list[str]] = defaultdict(list)
    for change in changes:
        line = f"{change.file}: {change.what}: {change.why}"
        by_what[change.why if change.what != "removed" else "removed"].append(line)
    for lines in by_what.values():
        _show_some(console, lines)
    changed = len({change.file for change in changes})
    files = "1 file" if changed == 1 else f"{changed} files"
    console.print(f"{out}: {files} changed; {out / LOG_FILE} names them", highlight=False)


def _show_findings(console: Console, dataset: Path, findings: Sequence[Finding]) -> None:
    if not findings:
        console.print(f"{dataset}: nothing found", highlight=False)
        return
    by_kind: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        stop = "" if finding.found.endswith((".", "!", "?")) else "."
        line = f"{finding.kind}: {finding.file}: {finding.found}{stop} {finding.mend}"
        by_kind[finding.kind].append(line)
    for lines in by_kind.values():
        _show_some(console, lines)
    kinds = ", ".join(f"{len(lines)} {kind}" for kind, lines in by_kind.items())
    console.print(f"{dataset}: {kinds}", highlight=False)


def _show_some(console: Console, lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        console.print(line, highlight=False)
    if len(lines) > SHOWN:
        console.print(f"... and {len(lines) - SHOWN} more (--json has all)", highlight=False)
