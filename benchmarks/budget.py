"""Claim: a time budget is kept, and half an hour on two cores from random weights is enough for
a usable CamVid model.

Runs ``delineate train`` with ``--budget 30m`` on the shared CamVid (the usual val, which shares a
video sequence with train and so flatters), or reads a run that was made so: ``-m
benchmarks.budget RUN``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import shared, write

BUDGET_S = 1800


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "camvid"
        if len(sys.argv) == 1:
            command = ["delineate", "train", str(shared("data/camvid")), "-o", str(run)]
            subprocess.run([*command, "--budget", f"{BUDGET_S}s"], check=True)
        record = json.loads((run / "run.json").read_text())
        result = json.loads((run / "result.json").read_text())
    sys.argv[1:] = []  # where the run lay says nothing to a reader
    assert record["duration"]["budget_s"] == BUDGET_S, "not a run of half an hour"
    scores = result["validation"]
    write(
        "budget",
        "a budget of 30 minutes is kept within 5 %, and reaches 0.45 mIoU on CamVid",
        {
            "miou_camvid_val": round(scores["mean_iou"], 4),
            "elapsed_s": result["elapsed_s"],
            "deadline_missed_percent": round(100 * (result["elapsed_s"] / BUDGET_S - 1), 2),
            "steps": result["steps"],
            **{f"iou_{row['name']}": round(row["iou"] or 0, 4) for row in scores["classes"]},
        },
        {},
    )


if __name__ == "__main__":
    main()
