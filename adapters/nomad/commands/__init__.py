"""Commands for people and tasks. They speak to the service only, through what their call brings."""
