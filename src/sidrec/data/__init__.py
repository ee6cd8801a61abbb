"""Events, items, baskets and catalogues: what a model is fitted on."""
