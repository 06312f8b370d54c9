"""Measurements that the documentation carries; run from a checkout, not installed."""
