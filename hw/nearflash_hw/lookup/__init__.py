"""The embedding lookup engine: query parsing, row translation, flash reads in flight, pooling, results."""
