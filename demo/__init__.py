"""Demonstrations: what a newcomer runs first. They use the product as anybody would, and clean up."""
