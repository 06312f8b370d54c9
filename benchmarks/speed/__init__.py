"""Speed and memory of earteach, each figure as a ratio to a reference.

    python -m benchmarks.speed

Both sides of a ratio are timed alternately in one run, so that a busy machine slows both.
"""
