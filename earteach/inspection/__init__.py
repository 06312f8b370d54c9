"""What is in the arrays, and what is wrong with them, before an hour is lost training on them.

    >>> found = inspect_data("train_teacher.npy", "val_teacher.npy")
    >>> found.train.images, found.leakage.exact
    (12000, 0)
    >>> [problem.message for problem in found.problems if problem.severity == "error"]
    ['train_teacher.npy: image 7: NaN or infinity; remove or repair it']

Bad values are findings; only an array that cannot be opened raises `EarTeachError`. Each array is
read once, in pieces of bounded memory: `reading` turns stored values into pixels, `survey` measures
every image, `likeness` finds copies, `findings` judges, `forecast` foretells, `sheets` and
`pictures` draw what to look at.
"""

from earteach.inspection.contact_sheets import SHEET_SIZE, augmented_sheet, contact_sheet
from earteach.inspection.inspect_data import inspect_data
from earteach.inspection.inspection_report import (
    ArrayReport,
    Forecast,
    Inspection,
    Leakage,
    Problem,
)

__all__ = [
    "SHEET_SIZE",
    "ArrayReport",
    "Forecast",
    "Inspection",
    "Leakage",
    "Problem",
    "augmented_sheet",
    "contact_sheet",
    "inspect_data",
]
