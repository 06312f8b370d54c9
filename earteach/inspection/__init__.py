"""What is in the arrays and what is wrong with them, before an hour of training is lost.

    >>> inspection = inspect_data("train_teacher.npy", "val_teacher.npy")
    >>> inspection.train.images, inspection.leakage.exact
    (12000, 0)
    >>> [problem.message for problem in inspection.problems if problem.severity == "error"]
    ['train_teacher.npy: image 7: NaN or infinity; remove or repair it']

Bad values are reported as problems; only an array that cannot be opened raises `EarTeachError`. Each
array is read once, in chunks of bounded memory. `survey` measures every image, `near_duplicates` finds
copies, `findings` has the checks, `pca_forecast` predicts the result of training, `pictures` draws.
"""

from earteach.inspection.inspect_data import SHEET_SIZE, inspect_data
from earteach.inspection.inspection_report import ArrayReport, Forecast, Inspection, Problem

__all__ = ["SHEET_SIZE", "ArrayReport", "Forecast", "Inspection", "Problem", "inspect_data"]
