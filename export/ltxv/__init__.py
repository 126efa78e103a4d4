"""LTX-Video checkpoints: releases, layouts, names, and the modules that are traced."""
