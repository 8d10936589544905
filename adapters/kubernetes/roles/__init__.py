"""The roles: how each is built from its flags. What a role does is in a folder or module of its own."""
