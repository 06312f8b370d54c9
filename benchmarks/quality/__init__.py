"""earteach beside PCA and two peers: the same images, the same time, one after the other.

    python -m benchmarks.quality --train T.npy --val wild=V.npy --minutes 45 --out DIR

Each model is trained and measured in a process of its own (`child.py`), so that none inherits memory or
threads from another; `__main__.py` starts them and writes the report.
"""
