"""Whether a call is allowed: policies, who calls, and what each call asks for."""
