"""One metric a file, each a function of what was said and what is true: numbers, no model."""
