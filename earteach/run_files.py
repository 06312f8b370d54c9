"""Names inside a run's files, which training writes and inference reads."""

RUN_NAME = "ear_vae"  # the folder below --log-dir
METRICS_FILE = "metrics.jsonl"  # a JSON object for each epoch, in that folder
VALIDATION_EARS = "val/reconstructions"  # TensorBoard's tag of the same few ears in each epoch
RECORDER_STATE = "Recorder"  # the run's history, among the callbacks' states in a checkpoint
