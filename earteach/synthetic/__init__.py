"""Drawn ears: pictures of ears that nobody has, with landmarks that are known exactly."""
