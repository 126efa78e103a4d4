"""Descriptions of every file that a command takes, for `ltx-export inspect`.

from ltxrt.export.inspect import explain

print("\n".join(explain("model.safetensors").lines))
"""

from ltxrt.engines.public import lazy

__all__ = ["describe", "explain"]

__getattr__ = lazy(__name__, {"describe": "checkpoint", "explain": "kinds"})
