"""The contract suite."""

from __future__ import annotations

from tidegate.testing.contracts import PluginContract, TransformContract


class TestContract(PluginContract, TransformContract):
    name = "ai-formats"

    def options(self):
        return {"warnings": True}
