"""The two layers that come from torchvision, without the rest of it.

`import torchvision` takes longer than `import torch`, for models and compilers that are not used here.
Its packages therefore run when something in them is asked for that is not imported yet; everybody else
who imports torchvision finds all of it, and the same classes.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Postponed(ModuleType):
    """A package whose `__init__` runs when an attribute is missing. Its modules can be imported before.

    `importlib.util.LazyLoader` would run it for those too, as they ask for the package's path.
    """

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__
        assert self.__spec__.loader
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _postpone(name: str) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Postponed
    sys.modules[name] = package
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, package)


_postpone("torchvision")
_postpone("torchvision.ops")

from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork  # noqa: E402
from torchvision.ops.misc import SqueezeExcitation  # noqa: E402

__all__ = ["FeaturePyramidNetwork", "SqueezeExcitation"]
