"""The teacher of a student: what the student's checkpoints keep of it, and how it is found again."""

from __future__ import annotations

from pathlib import Path

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.errors import EarTeachError
from earteach.run_files import TEACHER_COPY

TEACHER = "teacher"  # the entry of a student's checkpoint that names it


def find_teacher(student: Checkpoint) -> Checkpoint:
    """The teacher's checkpoint: the copy beside the student, or the original.

    Raises `EarTeachError` where the checkpoint is no student's, or neither file is its teacher any
    more.
    """
    if TEACHER not in student.about:
        raise EarTeachError(f"{student.path}: not a student; `earteach distil` trains one from it")
    entry = student.about[TEACHER]
    for path in (student.path.with_name(TEACHER_COPY), Path(entry["path"])):
        if path.is_file() and checkpoint.file_hash(path) == entry["sha256"]:
            return checkpoint.read(path)
    raise EarTeachError(
        f"{student.path}: its teacher, {entry['path']} (SHA-256 {entry['sha256'][:12]}…), is "
        f"missing; put it back, or copy it beside the student as {TEACHER_COPY}"
    )
