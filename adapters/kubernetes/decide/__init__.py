"""What this orchestrator decides for itself: pure functions over what was observed."""
