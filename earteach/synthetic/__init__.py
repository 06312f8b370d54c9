"""Drawn ears: synthetic ears of nobody, with exactly known landmarks."""
