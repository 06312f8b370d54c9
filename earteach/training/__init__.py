"""The one Lightning core: the module, its callbacks, and `fit`."""
