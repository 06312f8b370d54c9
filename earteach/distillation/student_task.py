"""The task of `earteach distil`: a student learns from a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earteach import checkpoint
from earteach.checkpoint import Checkpoint
from earteach.config import TrainConfig
from earteach.data.arrays import EarArray
from earteach.distillation.student_module import StudentLightning
from earteach.distillation.teacher import TEACHER
from earteach.errors import EarTeachError
from earteach.run_files import TEACHER_COPY
from earteach.training.lightning_module import EarVAELightning
from earteach.training.task import Task


class StudentTask(Task):
    """Training a student of `teacher`; `entry` is what a resumed run has kept of it."""

    name = "distil"
    sharpens = False

    def __init__(self, teacher: Checkpoint, entry: Mapping[str, str] | None = None) -> None:
        self._teacher = teacher
        path = teacher.path
        self._entry = entry or {"path": str(path), "sha256": checkpoint.file_hash(path)}

    def check(self, config: TrainConfig) -> None:
        teacher = self._teacher
        if teacher.config.model.encoder == config.model.encoder:
            own = teacher.about.get(TEACHER, {}).get("path")
            raise EarTeachError(
                f"{teacher.path}: its encoder is already {config.model.encoder}; name "
                + (f"its teacher, {own}, or another checkpoint" if own else "another checkpoint")
            )

    def module(self, config: TrainConfig) -> EarVAELightning:
        return StudentLightning(config.to_dict()).with_teacher(self._teacher.model())

    def initialise(self, module: EarVAELightning, images: EarArray, *, keep: bool) -> None:
        assert isinstance(module, StudentLightning)
        module.init_from_teacher()

    def prepare_folder(self, folder: Path) -> None:
        checkpoint.name_again(self._teacher.path, folder / TEACHER_COPY)

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {TEACHER: dict(self._entry)}

    def mismatch(self, run: Checkpoint) -> str | None:
        if different := super().mismatch(run):
            return different
        theirs = run.about[TEACHER]
        same = theirs["sha256"] == self._entry["sha256"]
        return None if same else f"with another teacher, {theirs['path']}"

    def kld_schedule(self, config: TrainConfig) -> tuple[float, ...]:
        return ()
