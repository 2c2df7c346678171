"""Looking at training and at trained networks."""
