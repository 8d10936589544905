"""The command line: talks to the API, and starts the service. Nothing heavy is imported before it is needed."""
