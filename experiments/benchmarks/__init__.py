"""What a step costs, and what accuracy is had for it."""
