"""How the engines of LTX-Video are verified."""
