"""Does the packaged bundle load in a real server and answer."""
