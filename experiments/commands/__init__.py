"""The command line, and what each command sets off."""
