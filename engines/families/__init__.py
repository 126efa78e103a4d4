"""The model families: what each says of its model, and which components it has."""
