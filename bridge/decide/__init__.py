"""What is to be done, purely: observed values and an instant in, one action out. No IO, no clock, no randomness."""
