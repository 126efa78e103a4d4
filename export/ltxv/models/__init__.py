"""The torch modules that are traced: compact, with the official checkpoint's parameter names."""
