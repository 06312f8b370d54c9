"""Checkpoint in, result out; no Lightning."""
