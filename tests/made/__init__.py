"""Made images whose truth is known: for tasks of which the development data has no images."""
