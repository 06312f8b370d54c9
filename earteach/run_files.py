"""The names of a run's files that several stages know.

`training/checkpoint_callback.py` writes the checkpoints, `training/recorder.py` what is logged in each
epoch, `distillation/student_task.py` the copy of the teacher, and `inference/report.py` the page.
"""

# In --checkpoint-dir.
LAST = "last.ckpt"
BEST, BEST_SSIM = "best-epoch=", "best-ssim-epoch="  # the beginnings of two names
TEACHER_COPY = "teacher.ckpt"  # beside a student's checkpoints
REPORT_PAGE = "report.html"

# Beside a checkpoint, in place of its .ckpt: what new ears are drawn with.
MIXTURE, SECOND_DECODER = ".mixture.npz", ".sharp.npz"
SHARPENING = ".sharpening"  # the state of an unfinished second decoder

# In --log-dir.
RUN_NAME = "ear_vae"  # its folder there
METRICS_FILE = "metrics.jsonl"  # a JSON object for each epoch, in that folder
VALIDATION_EARS = "val/reconstructions"  # TensorBoard's tag of the same few ears in each epoch

# In a checkpoint.
RECORDER_STATE = "Recorder"  # the run's history, among the callbacks' states

STUDENTS = "students"  # the folder of `distil`, for checkpoints and logs
