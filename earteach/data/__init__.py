"""Photographs and arrays in, batches out."""
