"""The end of a pipeline: a judged bundle in the registry, promoted by nobody yet."""
