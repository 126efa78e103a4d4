"""Images and videos: reading conditions, preprocessing them, writing videos."""
