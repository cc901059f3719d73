"""Images and labels as arrays, and what is done to a batch of them."""
