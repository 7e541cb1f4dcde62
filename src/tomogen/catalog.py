"""The folder is the registry: a module's file name is the name that a user types."""

import functools
import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType


def names(room: str) -> list[str]:
    """Names of the public modules of `tomogen.<room>` and of installed plugins, none of them imported."""
    package = importlib.import_module(f"tomogen.{room}")
    own = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    return sorted(own | set(_plugins(room)))


def load(room: str, name: str) -> ModuleType:
    """The module `name` of a room.

    Raises:
        LookupError: there is no such module; the message lists those that exist.
    """
    plugin = _plugins(room).get(name)
    if plugin is not None:
        module = plugin.load()
        if isinstance(module, ModuleType):
            return module
    if name not in names(room):
        raise LookupError(f"no {name!r} among {room}; there are: {', '.join(names(room))}")
    return importlib.import_module(f"tomogen.{room}.{name}")


@functools.cache
def _plugins(room: str) -> dict[str, EntryPoint]:
    """Entry points of a room by name. Looking through what is installed takes milliseconds: once is enough."""
    return {entry.name: entry for entry in entry_points(group=f"tomogen.{room}")}
