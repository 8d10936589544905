"""What Nomad's side decides for itself, purely: what a job asks for. No IO, no clock, no randomness."""
