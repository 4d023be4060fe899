"""The tests. They start every server that they need."""

import sys
from pathlib import Path

if "pytest" in sys.modules:  # not in the processes that tests start
    import pytest

    # pytest shows the values of a failed `assert` in modules that it rewrites: test modules, and
    # those registered here before their first import.
    for path in Path(__file__).parent.glob("[!_]*"):
        pytest.register_assert_rewrite(f"{__name__}.{path.stem}")
