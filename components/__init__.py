"""One folder a pipeline step: `component.py` is the KFP spec, `run.py` the plain function it calls."""
