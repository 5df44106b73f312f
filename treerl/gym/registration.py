"""Announces `treerl/Denoising-v0` to gymnasium, without importing it for those who need none."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ID = "treerl/Denoising-v0"


def announce() -> None:
    """Register now where gymnasium is loaded already, else as soon as somebody imports it."""
    if hasattr(sys.modules.get("gymnasium"), "register"):
        register()
    else:
        sys.meta_path.insert(0, _WhenImported())


def register() -> None:
    """Make the name known; registering it again changes nothing."""
    import gymnasium

    if ID not in gymnasium.registry:
        gymnasium.register(
            id=ID,
            entry_point="treerl.gym.make:make",
            vector_entry_point="treerl.gym.make:make_vector",
        )


class _WhenImported:
    """An import hook that leaves `import gymnasium` as it is, and registers after it."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != "gymnasium":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                return self._with_registration(spec)
        return None

    def _with_registration(self, spec: ModuleSpec) -> ModuleSpec:
        loader: Any = spec.loader
        load = loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            sys.meta_path.remove(self)
            register()

        loader.exec_module = load_and_register
        return spec
