"""timm and torchvision without torch's compiler, which both ask for when they are imported.

``torchvision.ops.roi_align`` takes a function of it, and a module of timm marks functions that it
shall leave alone. Whoever only predicts need neither wait for it nor hold it: it comes when it is
used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


def _is_compile_supported(device_type: str) -> bool:
    return bool(import_module(f"{_COMPILER}.utils").is_compile_supported(device_type))


def _disable(fn: Any = None, *_: Any, **__: Any) -> Any:
    """Mark nothing: no model of ours has what timm marks so."""
    return fn if fn is not None else lambda marked: marked


class _Later(ModuleType):
    """Stands for a module, until more of it is used than is known here."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspect asks all modules for their files
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in [n for n, module in sys.modules.items() if isinstance(module, _Later)]:
        del sys.modules[name]


def import_timm() -> None:
    """Import timm, where it is not imported already, without the compiler."""
    if not {"timm", "torchvision", _COMPILER} & sys.modules.keys():
        import_module("torch")
        utils = _Later(f"{_COMPILER}.utils", is_compile_supported=_is_compile_supported)
        sys.modules[utils.__name__] = utils
        found = find_spec(_COMPILER)  # its other modules are found beside the one that is not read
        path = found.submodule_search_locations if found else None
        sys.modules[_COMPILER] = _Later(_COMPILER, disable=_disable, utils=utils, __path__=path)
        try:
            import_module("timm")
        finally:
            _remove_stand_ins()
