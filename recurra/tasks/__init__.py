"""Model, loss, metric and decoding of one kind of problem a file."""
