"""Studies: variants of a recipe, several seeds each, judged on the same rows beside the floors."""
