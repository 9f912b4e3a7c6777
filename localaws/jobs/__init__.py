"""Training jobs and tuning jobs, run as processes of this machine."""
