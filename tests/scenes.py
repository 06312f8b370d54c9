"""Photographs with an ear somewhere in them."""

from pathlib import Path

import cv2
import numpy as np

from earteach.synthetic.drawn_ear import draw_ear


def scenes(folder: Path, number: int) -> tuple[Path, Path]:
    """Photographs of 128×96 with a drawn ear on noise in each, and a table of their boxes."""
    photographs, rows = folder / "photographs", ["file,x,y,w,h"]
    photographs.mkdir()
    for index in range(number):
        rng = np.random.default_rng(index)
        image = rng.integers(90, 110, (96, 128, 3), dtype=np.uint8)
        x, y = rng.integers(0, (88, 56))
        image[y : y + 40, x : x + 40] = draw_ear(0, index, 40).image
        cv2.imwrite(str(photographs / f"{index:02}.png"), image)
        rows.append(f"{index:02}.png,{x},{y},40,40")
    (folder / "boxes.csv").write_text("\n".join(rows))
    return photographs, folder / "boxes.csv"
