"""Heat maps: where a model of a finished run looks."""
