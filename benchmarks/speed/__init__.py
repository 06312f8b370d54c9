"""Where earteach's time goes, each figure as a ratio to what it is to be measured against.

    python -m benchmarks.speed

Both sides of a ratio are timed in turn in one run, so that a busy machine slows both.
"""
