"""The references that engines are compared with: our modules in torch, and diffusers."""
