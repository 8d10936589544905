"""The HTTP API: /v1, health and metrics, over the Desk port. It decides nothing and keeps nothing."""
