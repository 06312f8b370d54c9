"""Draws `images/schedules.svg`, the KLD weight's schedules: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from earteach.charts import chart, write_svg
from earteach.config import KLDConfig
from earteach.model.annealing import progress

EPOCHS = 40


def main(path: Path) -> None:
    charts = []
    for strategy in ("cyclic", "linear", "monotonic"):
        config = KLDConfig(kld_anneal_strategy=strategy)
        points = [(epoch + 1, progress(epoch, EPOCHS, config)) for epoch in range(EPOCHS)]
        drawn = chart(strategy, {"share of the weight": points})
        assert drawn is not None
        charts.append(drawn)
    write_svg(path, charts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
