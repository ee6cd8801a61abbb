"""The last word of a run on a cluster: how it ended, in a file and in the log."""
