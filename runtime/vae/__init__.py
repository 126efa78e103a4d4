"""The autoencoder in tiles."""
