"""What a user asks for: options, settings files, and the request they make."""
