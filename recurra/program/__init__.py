"""A step as data: values, the table of operations, tracing, verification, text."""
