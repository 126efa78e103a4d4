"""Checkpoint files of any model: safetensors, folders, typed fields of JSON configs."""

__all__ = ["fields", "folder", "part", "safetensors"]
