"""Where a flow's function comes from, so that another process can find it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from penstock.core.scripts import script_of


def origin_of(flow: Any) -> str:
    """Give, as JSON, where a flow's function comes from.

    `module`, `name`: the module and the function's qualified name; `file`: its file, `script`:
    whether that is a script, to be loaded from the file, unless there is an `import_name` (as
    with `python -m`); `folder`, `paths`: the working folder, and others to import from.
    """
    fn = getattr(flow.fn, "func", flow.fn)
    module = getattr(fn, "__module__", None) or type(fn).__module__
    script = script_of(module)
    loaded = sys.modules.get(module)
    file = script or getattr(loaded, "__file__", None)
    spec = getattr(loaded, "__spec__", None)
    return json.dumps(
        {
            "module": module,
            "name": getattr(fn, "__qualname__", None) or flow.name,
            "file": None if file is None else os.path.abspath(file),
            "script": script is not None,
            "import_name": spec.name if module == "__main__" and spec is not None else None,
            "folder": os.getcwd(),
            "paths": _own_paths(),
        }
    )


def _own_paths() -> list[str]:
    """Give the folders on the module path that are not Python's own."""
    own = (sys.prefix, sys.base_prefix)
    paths = (os.path.abspath(path) for path in sys.path[:10])
    return [path for path in paths if not path.startswith(own) and os.path.isdir(path)]
