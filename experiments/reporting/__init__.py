"""Tables, pictures and pages, from result lines alone."""
