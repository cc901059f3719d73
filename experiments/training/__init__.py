"""From a list of configurations to result lines, through checkpoints and interruptions."""
