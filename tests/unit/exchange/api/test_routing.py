"""What every request would pay for: a plain function among the dependencies of a route is run in a thread."""

import importlib
import inspect
import pkgutil
from typing import Annotated, get_origin

from fastapi.params import Depends

from cloister.exchange import api


def test_no_dependency_takes_a_thread() -> None:
    found = []
    for module in pkgutil.iter_modules(api.__path__, f"{api.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if get_origin(value) is Annotated:
                found += [(module.name, name, mark.dependency) for mark in value.__metadata__ if isinstance(mark, Depends)]
    assert len(found) > 5
    assert [one for one in found if not inspect.iscoroutinefunction(one[2])] == []
