"""The sampling loop: schedules, guidance, conditioning, rotary tables."""
