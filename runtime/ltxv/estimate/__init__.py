"""What a planned run of LTX-Video would do and take, in memory and time, before anything is loaded."""
