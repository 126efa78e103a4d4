"""A family of models for tests alone: video and sound tokens in one network, with nothing of LTX-Video's."""
