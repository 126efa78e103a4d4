"""Images and videos: read as conditions, prepared, written."""
