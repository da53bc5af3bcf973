"""Which of the processes on several machines is the main one: the first of the machine that leads.

The ranks come from the machines' addresses, so rank 0 may lie on any of them. The machine that
leads has the run's lock, shows the progress and exports, so the main process has to be there. It
says so in a file of the run's folder, which all machines see.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from delineate.data.files import write_text
from delineate.errors import EngineError

MAIN = ".main"
_LOOK_AGAIN_S = 0.2


def agreed_main(folder: Path, *, leads: bool, rank: int, limit_s: float = 600.0) -> int:
    """The rank of the main process in this start of the processes, as torchrun's variables name it.

    Args:
        folder: one that all machines see.
        leads: this process is on the machine that leads.
        rank: of this process.
        limit_s: seconds that another machine's word is waited for.

    Raises:
        EngineError: nothing was said in time.
        OutputError: the folder cannot be written.
    """
    # processes that are started again meet at another port
    start = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    path = folder / MAIN
    if leads:
        main = rank - int(os.environ["LOCAL_RANK"])
        if main == rank:
            write_text(path, f"{start} {main}")
        return main
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        words = path.read_text(encoding="utf-8").split() if path.exists() else []
        if words[:1] == [start]:
            return int(words[1])
        time.sleep(_LOOK_AGAIN_S)
    raise EngineError(
        f"no machine that leads has said so within {limit_s:g} s",
        where=folder,
        mend="See that all machines have the same folder there.",
    )
